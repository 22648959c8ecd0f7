from msc_edge.calibration import Calibration, Limit, Limits
from msc_edge.describe import describe_interval, describe_limits

# Twelve scores, as the toy kit has: 1/13 = 7.7 % is the smallest false-alarm rate that they can give.
CALIBRATION = Calibration([number / 100 for number in range(1, 13)])


def described(limits: Limits) -> dict[str, str]:
    return dict(describe_limits(limits, CALIBRATION))


def by_hand(score: float) -> Limit:
    return Limit(score=score, target_rate=None, expected_rate=None)


def test_target_expected_rate_and_interval_of_both_limits() -> None:
    lines = described(CALIBRATION.limits(warn_rate=0.2, reject_rate=0.1))
    # The intervals are quantiles of Beta(2, 11) and Beta(1, 12).
    assert lines == {
        "warn": "score above 0.110000; false-alarm rate: target 20 %, expected 15.4 %, 90 % interval 3 to 33.9 %",
        "reject": "score above 0.120000; false-alarm rate: target 10 %, expected 7.7 %, 90 % interval 0.43 to 22.1 %",
    }


def test_too_few_images_for_the_target_give_a_caution_with_the_number_needed() -> None:
    lines = described(CALIBRATION.limits(warn_rate=0.2, reject_rate=0.01))
    assert lines["reject"].endswith("target 1 %, expected 7.7 %, 90 % interval 0.43 to 22.1 %")
    # 1 / 100 is the smallest rate that 99 images can give.
    assert lines["caution"] == (
        "reject: the expected false-alarm rate is 7.7 %, above the target of 1 %: that target needs at least 99 "
        "calibration images, and the kit has 12"
    )


def test_each_limit_gets_a_caution_of_its_own() -> None:
    limits = CALIBRATION.limits(warn_rate=0.05, reject_rate=0.01)
    lines = list(describe_limits(Limits(warn=limits.warn, reject=by_hand(0.5)), CALIBRATION))
    assert [name for name, _ in lines] == ["warn", "caution", "reject"]
    assert "at least 19 calibration images" in lines[1][1]


def test_a_limit_set_by_hand_has_no_rates_and_gives_the_images_above_it() -> None:
    lines = described(Limits(warn=by_hand(0.09), reject=by_hand(0.1)))
    assert lines == {
        "warn": "score above 0.090000, set by hand; 3 of 12 calibration images exceed it",
        "reject": "score above 0.100000, set by hand; 2 of 12 calibration images exceed it",
    }


def test_a_warn_limit_that_no_score_can_use_is_reported() -> None:
    lines = described(Limits(warn=by_hand(0.1), reject=by_hand(0.1)))
    assert lines["warn"] == "not used: the warn limit is equal to the reject limit"
    assert lines["reject"].startswith("score above 0.100000")


def test_the_interval_of_a_limit_in_words() -> None:
    assert describe_interval(CALIBRATION, CALIBRATION.limit(0.2)) == "3 to 33.9 %"
    assert describe_interval(CALIBRATION, by_hand(0.1)) == "0 to 100 %"
