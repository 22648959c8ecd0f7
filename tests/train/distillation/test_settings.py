import pytest

from msc_edge.train.distillation.settings import Distillation, decay_started, learning_rate_at


def settings(steps: int) -> Distillation:
    return Distillation(steps=steps, batch=8, learning_rate=2.0, image_size=64, dtype="fp32", seed=0)


def test_the_learning_rate_rises_stays_and_decays() -> None:
    rates = [learning_rate_at(step, settings(1000)) for step in range(1000)]
    assert rates[0] == pytest.approx(2 / 100)
    assert rates[49] == pytest.approx(1)
    assert rates[99:701] == pytest.approx([2] * 602)
    assert rates[850] == pytest.approx(1)
    assert rates[999] == pytest.approx(2 / 300)
    assert rates[100:] == sorted(rates[100:], reverse=True)


@pytest.mark.parametrize("steps", [200, 1000, 4000])
def test_before_the_decay_the_learning_rate_does_not_depend_on_the_number_of_steps(steps: int) -> None:
    begin = next(step for step in range(1, steps + 1) if decay_started(step, settings(steps)))
    assert 0.7 * steps <= begin <= 0.7 * steps + 2
    for step in range(begin - 1):
        assert learning_rate_at(step, settings(steps)) == learning_rate_at(step, settings(10**6))


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_short_distillations_have_positive_learning_rates(steps: int) -> None:
    assert all(0 < learning_rate_at(step, settings(steps)) <= 2 for step in range(steps))
