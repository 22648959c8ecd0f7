"""The drift test: exact ranks, a capital that is a fair bet, few false calls, and quick ones."""

import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from msc_edge.calibration import Calibration
from msc_edge.drift import _EXPONENTS, Bets, DriftCall, DriftTest, Ranks, _bin_of, _unspent, independent

FINITE = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=50, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=60))
def test_p_values_are_ranks_among_all_scores_before(scores: list[float]) -> None:
    ranks = Ranks()
    for number, score in enumerate(scores):
        own, earlier = _bin_of(score), [_bin_of(each) for each in scores[:number]]
        above, equal = sum(each > own for each in earlier), earlier.count(own)
        u = 1 - random.Random(number).random()
        assert ranks.add(score) == pytest.approx((above + u * (equal + 1)) / (number + 1), abs=1e-12)


def test_p_values_of_exchangeable_scores_are_uniform_and_independent() -> None:
    ranks, rng = Ranks(), np.random.default_rng(0)
    found = np.array([ranks.add(score) for score in rng.gamma(2, size=4000)])
    assert np.abs(np.sort(found) - np.linspace(0, 1, 4000)).max() < 1.63 / math.sqrt(4000)  # Kolmogorov, 1 %
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 2.6 / math.sqrt(4000)


@given(FINITE, FINITE)
def test_bins_keep_the_order_and_are_fine(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert _bin_of(low) <= _bin_of(high)
    if low > 0 and high > 1.01 * low and low > 1e-30:
        assert _bin_of(low) < _bin_of(high)


def test_memory_does_not_grow_with_the_line() -> None:
    ranks, rng = Ranks(), np.random.default_rng(1)
    for score in rng.normal(2, 1, size=20_000):
        ranks.add(score)
    assert len(ranks.bins) < 6000
    assert ranks.total == sum(ranks.counts) == 20_000


@pytest.mark.parametrize("exponent", _EXPONENTS)
def test_each_bet_is_fair_and_no_bet_gains_from_scores_that_are_too_low(exponent: float) -> None:
    def gain(p: float) -> float:
        return exponent * p ** (exponent - 1)

    assert quad(gain, 0, 1)[0] == pytest.approx(1, abs=1e-6)
    assert all(gain(low) > gain(high) for low, high in pairwise(np.linspace(0.01, 1, 50)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-4, 1), max_size=30))
def test_the_capital_is_the_mixture_over_all_beginnings_and_bets(p_values: list[float]) -> None:
    bets, count = Bets(), len(p_values)
    for image, p_value in enumerate(p_values, start=1):
        bets.add(p_value, image=image)
    expected, best = _unspent(count), (0.0, 1)
    for exponent in _EXPONENTS:
        for start in range(count):
            share = _unspent(start) - _unspent(start + 1)
            gains = math.prod(exponent * p ** (exponent - 1) for p in p_values[start:])
            expected += share * gains / len(_EXPONENTS)
            best = max(best, (share * gains, start + 1))
    assert bets.capital == pytest.approx(expected, rel=1e-9)
    if best[0] > 1.01 * min(bets.best):
        assert max(bets.best) == pytest.approx(best[0], rel=1e-9)
    assert Bets().capital == 1


def drifting(test: DriftTest, scores: np.ndarray) -> tuple[int, DriftCall] | None:
    """The number of scores until the call, and the call."""
    for number, score in enumerate(scores, start=1):
        if call := test.add(score):
            return number, call
    return None


def limited(rng: np.random.Generator, images: int = 100) -> DriftTest:
    calibration = rng.normal(size=images)
    return DriftTest(calibration.tolist(), float(np.sort(calibration)[-2]))


def test_of_a_hundred_lines_without_drift_at_most_the_promised_share_is_called() -> None:
    rng = np.random.default_rng(2)
    called = sum(drifting(limited(rng), rng.normal(size=1000)) is not None for _ in range(100))
    assert called <= 4  # one is promised; binomial(100, 0.01) is above 4 once in 290 times


@pytest.mark.parametrize(("before", "most"), [(0, 400), (300, 150), (5000, 150)])
def test_a_rise_by_a_standard_deviation_is_called_and_dated(before: int, most: int) -> None:
    rng = np.random.default_rng(before)
    for _ in range(3):
        test = limited(rng, images=300)
        assert drifting(test, rng.normal(size=before)) is None
        found = drifting(test, rng.normal(size=2 * most) + 1)
        assert found is not None
        assert found[0] <= most
        assert found[1].change == "rise"
        began = found[1].images - min(found[0], found[1].images)
        assert abs(found[1].since - began) < 40 + 0.5 * found[0]


def test_a_fall_is_called_too_once_the_line_is_known() -> None:
    """A fogged lens may make all images look alike."""
    rng = np.random.default_rng(5)
    test = limited(rng)
    assert drifting(test, rng.normal(size=500)) is None
    found = drifting(test, rng.normal(size=300) - 1)
    assert found is not None
    assert found[1].change == "fall"


def test_a_calibration_with_higher_scores_than_the_line_is_no_drift() -> None:
    rng = np.random.default_rng(6)
    assert drifting(limited(rng), rng.normal(size=2000) - 0.5) is None


def test_rejected_parts_are_no_drift() -> None:
    rng = np.random.default_rng(7)
    scores = np.where(rng.random(3000) < 0.05, 50.0, rng.normal(size=3000))
    assert drifting(limited(rng), scores) is None


def test_a_share_of_rejected_parts_that_changes_is_called_even_where_all_are_rejected() -> None:
    rng = np.random.default_rng(9)
    test = limited(rng)
    before = np.where(rng.random(400) < 0.05, 50.0, rng.normal(size=400))
    assert drifting(test, before) is None
    found = drifting(test, np.full(40, 50.0))
    assert found is not None
    assert found[1].change == "rejects"
    assert abs(found[1].since - 401) <= 5


def test_of_images_of_one_part_one_is_taken() -> None:
    scores, groups = np.arange(60.0), np.arange(60) // 3
    found = independent(Calibration(scores, groups))
    assert sorted(score // 3 for score in found) == list(range(20))
    assert len({score % 3 for score in found}) == 3, "not always the lowest or the highest"
    assert found == independent(Calibration(scores, groups))
    assert sorted(independent(Calibration(scores))) == scores.tolist()


def test_a_test_goes_on_where_it_was_written() -> None:
    rng = np.random.default_rng(8)
    test, scores = limited(rng), rng.normal(0.3, 1, size=400)
    for score in scores[:200]:
        test.add(score)
    again = DriftTest.of(json.loads(json.dumps(test.state())))
    for score in scores[200:]:
        assert again.add(score) == test.add(score)
        assert again.capital == test.capital


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("limit",), "high"),
        (("images",), None),
        (("ranks", "rise", "bins"), [3, 2]),
        (("ranks", "rise", "counts"), []),
        (("ranks", "fall", "total"), 7),
        (("ranks", "rejects"), {"unknown": 1}),
        (("bets", "rise", "capitals"), [1.0]),
        (("bets", "rise", "capitals"), ["x", 0.0, 0.0, 0.0]),
        (("bets", "rise", "best"), [float("nan"), 0.0, 0.0, 0.0]),
        (("bets", "fall", "since"), 3),
        (("bets", "fall", "count"), -1),
        (("bets",), []),
    ],
)
def test_a_damaged_state_is_refused(place: tuple[str, ...], value: object) -> None:
    test = limited(np.random.default_rng(10))
    for score in (0.1, 0.5, -0.3):
        test.add(score)
    state = json.loads(json.dumps(test.state()))
    part = state
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    with pytest.raises((KeyError, TypeError, ValueError)):
        DriftTest.of(state)
