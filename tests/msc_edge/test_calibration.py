import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.calibration import Calibration, Limit, Limits, images_needed
from msc_edge.errors import UsageError
from msc_edge.intervals import alarm_count_interval, rate_interval

# Few distinct values, so that ties are common.
tied_scores = st.lists(st.integers(-8, 8).map(lambda i: i / 4), min_size=1, max_size=40)
any_scores = st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=1, max_size=40)
rates = st.builds(lambda n, d: Fraction(1 + n % (d - 1), d), st.integers(0, 10_000), st.integers(2, 400))


@given(tied_scores | any_scores, st.integers(-9, 9).map(lambda i: i / 4) | st.floats(-3, 3))
def test_p_value_counts_the_calibration_scores_at_least_as_large(scores: list[float], score: float) -> None:
    at_least = 0
    for each in scores:
        if each >= score:
            at_least += 1
    assert Calibration(scores).p_value(score) == pytest.approx((1 + at_least) / (len(scores) + 1), rel=1e-15)


@given(tied_scores | any_scores, rates, st.data())
def test_above_the_limit_means_a_p_value_up_to_the_expected_rate(
    scores: list[float], rate: Fraction, data: st.DataObject
) -> None:
    calibration = Calibration(scores)
    limit = calibration.limit(float(rate))
    assert limit.expected_rate is not None
    for score in [data.draw(st.floats(-3, 3)), data.draw(st.sampled_from(scores)), limit.score]:
        for nudged in (math.nextafter(score, -math.inf), score, math.nextafter(score, math.inf)):
            assert (nudged > limit.score) == (calibration.p_value(nudged) <= limit.expected_rate)


@given(tied_scores | any_scores, rates)
def test_the_expected_rate_is_the_target_rounded_down_to_a_step_but_at_least_one_step(
    scores: list[float], rate: Fraction
) -> None:
    steps = len(scores) + 1
    limit = Calibration(scores).limit(float(rate))
    assert limit.expected_rate == max(1, math.floor(rate * steps)) / steps
    assert limit.meets_target == (rate * steps >= 1)


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=30, unique=True), rates)
def test_leaving_out_each_of_n_plus_1_exchangeable_scores_gives_exactly_the_expected_rate(
    scores: list[float], rate: Fraction
) -> None:
    """The theorem itself: of n + 1 distinct scores any is equally likely to be the new one."""
    flagged = 0
    for i, new in enumerate(scores):
        limit = Calibration(scores[:i] + scores[i + 1 :]).limit(float(rate))
        flagged += new > limit.score
    assert flagged == max(1, math.floor(rate * len(scores)))


@pytest.mark.parametrize(
    ("n", "rate", "flagged"),
    [(19, 0.05, 1), (50, 0.1, 5), (99, 0.01, 1), (99, 0.29, 29), (30, 0.01, 1), (3, 0.5, 2)],
)
def test_the_simulated_false_alarm_rate_is_the_expected_rate(n: int, rate: float, flagged: int) -> None:
    trials = 8_000
    random = np.random.default_rng(n)
    scores = np.exp(random.normal(size=(trials, n + 1)))
    alarms = sum(row[0] > Calibration(row[1:]).limit(rate).score for row in scores)
    expected = flagged / (n + 1)
    four_sigma = 4 * math.sqrt(expected * (1 - expected) / trials)
    assert alarms / trials == pytest.approx(expected, abs=four_sigma)


def test_ties_lower_the_false_alarm_rate() -> None:
    trials, n, rate = 8_000, 40, 0.1
    scores = np.random.default_rng(0).integers(0, 6, size=(trials, n + 1))
    alarms = sum(row[0] > Calibration(row[1:]).limit(rate).score for row in scores)
    assert 0 < alarms / trials < rate


@given(any_scores, st.floats(1e-3, 5), st.floats(-1, 1), rates)
def test_decisions_do_not_change_with_the_unit_of_the_score(
    scores: list[float], scale: float, shift: float, rate: Fraction
) -> None:
    here, there = Calibration(scores), Calibration([scale * each + shift for each in scores])
    for score in scores:
        # Rounding may join two scores that were distinct, and joined scores count each other.
        assert there.p_value(scale * score + shift) >= here.p_value(score)
    assert there.limit(float(rate)).score == scale * here.limit(float(rate)).score + shift


@given(any_scores, rates, rates)
def test_a_larger_rate_never_has_the_higher_limit(scores: list[float], one: Fraction, other: Fraction) -> None:
    calibration = Calibration(scores)
    assert calibration.limit(float(max(one, other))).score <= calibration.limit(float(min(one, other))).score


def test_a_rate_of_all_but_one_flags_everything_above_the_smallest_score() -> None:
    assert Calibration([1, 2, 3]).limit(1 - 1e-12).score == 1


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.5, 1), (1 / 3, 2), (0.1, 9), (0.05, 19), (0.01, 99), (0.003, 333), (0.001, 999), (1e-6, 999_999), (0.9, 1)],
)
def test_images_needed(rate: float, expected: int) -> None:
    assert images_needed(rate) == expected


@given(st.floats(1e-3, 0.5))
def test_the_images_needed_meet_the_target_and_one_fewer_do_not(rate: float) -> None:
    needed = images_needed(rate)
    assert Calibration(np.arange(needed)).limit(rate).meets_target
    if needed > 1:
        assert not Calibration(np.arange(needed - 1)).limit(rate).meets_target


def test_too_few_images_give_a_rate_of_one_step_and_do_not_meet_the_target() -> None:
    limit = Calibration([0.1, 0.3, 0.2]).limit(0.01)
    assert (limit.score, limit.expected_rate, limit.meets_target) == (0.3, 0.25, False)


@pytest.mark.parametrize(("flagged", "held_out"), [(1, 1), (1, 99), (5, 99), (1, 120), (6, 120), (50, 1000)])
@pytest.mark.parametrize("images", [1, 20, 120, 2000])
def test_the_interval_of_the_alarm_count_is_that_of_the_beta_binomial(flagged: int, held_out: int, images: int) -> None:
    oracle = scipy.stats.betabinom(images, flagged, held_out + 1 - flagged)
    low, high = alarm_count_interval(flagged, held_out, images)
    rounding = 1e-8
    assert oracle.cdf(low - 1) - rounding <= 0.05 < oracle.cdf(low) + rounding
    assert oracle.cdf(high - 1) - rounding < 0.95 <= oracle.cdf(high) + rounding


def test_simulated_alarm_counts_lie_in_the_90_percent_interval_as_often_as_stated() -> None:
    random = np.random.default_rng(0)
    flagged, held_out, images, trials = 6, 120, 300, 4000
    low, high = alarm_count_interval(flagged, held_out, images)
    limits = np.sort(random.random((trials, held_out)), axis=1)[:, held_out - flagged]
    alarms = (random.random((trials, images)) > limits[:, None]).sum(axis=1)
    inside = ((low <= alarms) & (alarms <= high)).mean()
    assert 0.9 - 0.015 <= inside <= 0.95


HELD_OUT = [1, 2, 3, 5, 8, 19, 32, 99, 152, 180, 300, 999, 1000, 2500, 4999, 5000]


@pytest.mark.parametrize("held_out", HELD_OUT)
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.999])
def test_the_interval_of_the_rate_is_that_of_the_beta_distribution(held_out: int, confidence: float) -> None:
    for flagged in {1, 2, 3, held_out // 100, held_out // 20, held_out // 2, held_out - 1, held_out}:
        if 1 <= flagged <= held_out:
            tail = (1 - confidence) / 2
            expected = scipy.stats.beta.ppf([tail, 1 - tail], flagged, held_out + 1 - flagged)
            assert rate_interval(flagged, held_out, confidence) == pytest.approx(expected, rel=0, abs=1e-9)


@given(st.integers(1, 5000), st.data())
def test_the_interval_of_the_rate_holds_the_expected_rate_and_agrees_with_scipy(
    held_out: int, data: st.DataObject
) -> None:
    flagged = data.draw(st.integers(1, held_out))
    low, high = rate_interval(flagged, held_out)
    assert low < flagged / (held_out + 1) < high
    expected = scipy.stats.beta.ppf([0.05, 0.95], flagged, held_out + 1 - flagged)
    assert (low, high) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize(
    ("held_out", "percents"),
    [(300, (0.27, 2.1)), (1000, (0.54, 1.6))],  # in percent, to two digits
)
def test_reference_intervals_for_a_rate_of_one_percent(held_out: int, percents: tuple[float, float]) -> None:
    low, high = rate_interval(held_out // 100, held_out)
    assert (float(f"{100 * low:.2g}"), float(f"{100 * high:.2g}")) == percents


@given(st.integers(1, 500))
def test_the_interval_of_the_largest_score_has_a_closed_form(held_out: int) -> None:
    # 1 - (1 - r) ** n is the probability that at most the share r of all images lies above the largest of n scores.
    expected = (1 - 0.95 ** (1 / held_out), 1 - 0.05 ** (1 / held_out))
    assert rate_interval(1, held_out) == pytest.approx(expected, rel=0, abs=1e-12)


def test_a_limit_has_the_interval_of_its_count() -> None:
    calibration = Calibration(np.arange(152))
    for rate, count in ((0.05, 7), (0.001, 1)):  # the second one is the strictest there is
        interval = calibration.interval(calibration.limit(rate))
        assert interval == pytest.approx(rate_interval(count, 152), rel=1e-12)
    assert calibration.interval(Limit(score=3.0, target_rate=None, expected_rate=None)) is None


@pytest.mark.parametrize(
    ("flagged", "held_out", "confidence"),
    [(0, 5, 0.9), (6, 5, 0.9), (1, 0, 0.9), (1, 5, 0), (1, 5, 1), (1, 5, math.nan)],
)
def test_an_interval_without_a_meaning_is_refused(flagged: int, held_out: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="expected 1 <= count <= held_out"):
        rate_interval(flagged, held_out, confidence)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan, math.inf, -math.inf])
def test_a_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="expected a number between 0 and 1"):
        Calibration([1.0]).limit(rate)
    with pytest.raises(UsageError, match="expected a number between 0 and 1"):
        images_needed(rate)


@pytest.mark.parametrize("scores", [[], [math.nan], [0.1, math.inf], [[0.1, 0.2]], 0.1])
def test_missing_or_infinite_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"at least one score|axis -1 is out of bounds"):
        Calibration(scores)


def test_the_order_of_the_scores_does_not_matter_and_the_given_array_stays() -> None:
    given_scores = np.array([0.3, 0.1, 0.2])
    assert Calibration(given_scores).limit(0.5) == Calibration([0.1, 0.2, 0.3]).limit(0.5)
    assert given_scores.tolist() == [0.3, 0.1, 0.2]


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.1, "normal"), (0.2, "normal"), (0.21, "warn"), (0.4, "warn"), (0.41, "reject"), (2.0, "reject")],
)
def test_verdict_of_a_score(score: float, expected: str) -> None:
    limits = Limits(warn=Limit(0.2, None, None), reject=Limit(0.4, None, None))
    assert limits.verdict(score) == expected


def test_a_limit_set_by_hand_has_no_target_to_miss() -> None:
    assert Limit(score=0.5, target_rate=None, expected_rate=None).meets_target


@given(any_scores, rates, rates, st.floats(-3, 3))
def test_every_reject_is_also_above_the_warn_limit(
    scores: list[float], one: Fraction, other: Fraction, score: float
) -> None:
    limits = Calibration(scores).limits(warn_rate=float(max(one, other)), reject_rate=float(min(one, other)))
    if limits.verdict(score) == "reject":
        assert score > limits.warn.score


def test_a_warn_rate_below_the_reject_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="pass a warn rate that is at least the reject rate"):
        Calibration([1.0]).limits(warn_rate=0.01, reject_rate=0.02)


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=30, unique=True), st.integers(2, 5), rates)
def test_copies_of_an_image_count_once(scores: list[float], copies: int, rate: Fraction) -> None:
    once, often = Calibration(scores), Calibration(scores * copies, list(range(len(scores))) * copies)
    assert often.independent == pytest.approx(len(scores))
    one, other = once.limit(float(rate)), often.limit(float(rate))
    assert one.score == other.score
    assert one.expected_rate is not None
    assert other.expected_rate is not None
    # A limit among equal scores stands for all of them: the expected rate is right on average.
    assert abs(other.expected_rate - one.expected_rate) * (len(scores) + 1) <= 0.5
    for score in scores:
        assert often.p_value(score) == pytest.approx(once.p_value(score))


def test_a_group_counts_as_one_image_at_most() -> None:
    scores = np.random.default_rng(0).normal(size=3000)
    assert Calibration(scores, np.arange(3000) // 6).independent == 500
    assert Calibration(scores, np.arange(3000)).independent == 3000
    one = Calibration(scores, np.zeros(3000))
    assert (one.independent, one.limit(0.01).score, one.limit(0.01).expected_rate) == (1, scores.max(), 0.5)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05])
def test_of_parts_with_several_images_the_interval_is_right_as_often_as_stated(rate: float, correlation: float) -> None:
    """New images come from new parts, some with one image and some with seven."""
    random = np.random.default_rng(1)
    trials, parts, new_parts = 400, 120, 150

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = random.integers(1, 8, count)
        part = np.repeat(np.arange(count), sizes)
        own, common = random.normal(size=len(part)), random.normal(size=count)[part]
        return correlation**0.5 * common + (1 - correlation) ** 0.5 * own, part

    inside, rates_seen, naive = [], [], []
    for _ in range(trials):
        calibration = Calibration(*images(parts))
        limit = calibration.limit(rate)
        new, _ = images(new_parts)
        count = int((new > limit.score).sum())
        low, high = calibration.alarm_interval(limit, len(new)) or (0, 0)
        inside.append(low <= count <= high)
        rates_seen.append(count / len(new) - (limit.expected_rate or 0))
        alone = Calibration(calibration.scores)
        low, high = alone.alarm_interval(alone.limit(rate), len(new)) or (0, 0)
        naive.append(low <= int((new > alone.limit(rate).score).sum()) <= high)
    assert np.mean(inside) >= 0.87
    assert np.mean(rates_seen) < 0.2 * rate
    if correlation == 0.9:
        assert np.mean(naive) < 0.8
        # Otherwise more images than one for each part would count, and a limit is on the safe side.
        assert np.mean(inside) <= (0.98 if rate == 0.05 else 1)  # a few alarms are whole numbers
        # Among the largest scores, those of one part are less alike than the correlation says: the rate is lower.
        assert np.mean(rates_seen) > -0.5 * rate


def test_one_part_in_fifty_that_differs_as_a_whole_does_not_break_the_interval() -> None:
    """Forty parts may have none of them, and then nothing shows that the scores of a part are alike."""
    random = np.random.default_rng(0)

    def images(parts: int, times: int) -> np.ndarray:
        return random.normal(size=(parts, times)) + 5 * (random.random((parts, 1)) < 0.02)

    inside = []
    for _ in range(300):
        calibration = Calibration(images(40, 20).ravel(), np.repeat(np.arange(40), 20))
        limit, new = calibration.limit(0.01), images(300, 1)
        low, high = calibration.alarm_interval(limit, new.size) or (0, 0)
        inside.append(low <= (new > limit.score).sum() <= high)
    assert np.mean(inside) >= 0.87
