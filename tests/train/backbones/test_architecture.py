import pytest

from msc_edge.errors import UsageError
from msc_edge.train.backbones.architecture import no_weights


def test_a_network_without_weights_names_the_way_to_them() -> None:
    with pytest.raises(
        UsageError, match=r"--backbone tiny has no published weights; .* distil --student tiny, .* --weights FILE"
    ):
        no_weights("tiny")
