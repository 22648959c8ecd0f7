import pytest

from msc_edge.errors import UsageError
from msc_edge.train.options import check_learning_rate


@pytest.mark.parametrize("rate", [None, 1e-12, 3e-4, 1000.0])
def test_a_usable_learning_rate_is_accepted(rate: float | None) -> None:
    check_learning_rate(rate)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1001.0, 1e300])
def test_an_unusable_learning_rate_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="expected a number above 0 and at most 1000") as refused:
        check_learning_rate(rate)
    assert str(refused.value).startswith(f"--learning-rate {rate}: ")
