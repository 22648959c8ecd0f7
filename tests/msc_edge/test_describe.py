from pathlib import Path

import numpy as np
import pytest

from msc_edge.calibration import Calibration, Limit, Limits, Verdict
from msc_edge.describe import (
    describe_default_model,
    describe_disagreement,
    describe_interval,
    describe_least_p_value,
    describe_limits,
    describe_p_value,
    disagree,
)
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.quantization import AccuracyLoss

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


@pytest.mark.parametrize(
    ("verdict", "regions", "beginning"),
    [
        ("reject", 0, "Rejected, although the heatmap has no region"),
        ("normal", 2, "Normal, although the heatmap has a region"),
        ("reject", 1, ""),
        ("normal", 0, ""),
        ("warn", 0, "Warning, although the heatmap has no region"),
        ("warn", 1, ""),
        ("reject", None, ""),  # no heatmap
        ("normal", None, ""),
    ],
)
def test_a_verdict_and_a_heatmap_that_disagree_are_explained(
    verdict: Verdict, regions: int | None, beginning: str
) -> None:
    sentence = describe_disagreement(verdict, regions=regions)
    assert sentence.split(" above")[0] == beginning
    assert sentence == "" or sentence.endswith("the score decides, with its own limit.")


@pytest.mark.parametrize(
    ("flagged", "regions", "differ"),
    [(True, 0, True), (True, 2, False), (False, 0, False), (False, 1, True), (True, None, False), (False, None, False)],
)
def test_verdict_and_regions_differ_where_one_of_them_is_missing(flagged, regions, differ):
    assert disagree(flagged=flagged, regions=regions) == differ


class TestPValue:
    """With twelve calibration scores a p-value is a multiple of 1/13."""

    def test_the_least_one_is_an_upper_bound(self) -> None:
        assert CALIBRATION.p_value(5.0) == CALIBRATION.least_p_value == 1 / 13
        assert describe_p_value(1 / 13, CALIBRATION) == "at most 1 in 13"
        assert describe_p_value(round(1 / 13, 6), CALIBRATION) == "at most 1 in 13"
        assert describe_least_p_value(CALIBRATION) == "at most 1 in 13: all 12 calibration images scored lower"
        only = Calibration([0.5])
        assert describe_least_p_value(only) == "at most 1 in 2: the only calibration image scored lower"

    def test_others_are_numbers(self) -> None:
        assert describe_p_value(CALIBRATION.p_value(0.12), CALIBRATION) == "0.1538"

    def test_images_of_one_part_count_less(self) -> None:
        """Pairs of equal scores count as six images: the least p-value is 1/7."""
        pairs = Calibration(np.repeat([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2), np.repeat(range(6), 2))
        assert describe_least_p_value(pairs) == "at most 1 in 7: all 12 calibration images scored lower"


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


def loss_of(*, auroc: float, au_pro: float | None = None) -> AccuracyLoss:
    return AccuracyLoss(
        normal_images=64,
        synthetic_anomalies=192,
        strength=0.25,
        auroc_fp32=0.9,
        auroc=auroc,
        au_pro_fp32=None if au_pro is None else 0.7,
        au_pro=au_pro,
    )


def with_default(kit: Path, default: str, loss: AccuracyLoss | None) -> Manifest:
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    int8 = manifest.models["int8"]
    assert int8.agreement
    int8 = int8.model_copy(update={"agreement": int8.agreement.model_copy(update={"loss": loss})})
    return manifest.model_copy(update={"default_model": default, "models": {**manifest.models, "int8": int8}})


@pytest.mark.parametrize(
    ("default", "loss", "sentence"),
    [
        ("auto", None, "fp32 scores: the msc-edge that made this kit did not say which model does"),
        (
            "fp32",
            None,
            "fp32 scores: what int8 loses was not measured, which needs at least 64 images held out of training",
        ),
        ("int8", None, "int8 scores: requested at export"),
        (
            "int8",
            loss_of(auroc=0.899, au_pro=0.7),
            "int8 scores: on faint synthetic anomalies int8 has AUROC 0.8990 (fp32 0.9000) and AU-PRO 0.7000 (fp32 "
            "0.7000), less than 0.003 lower",
        ),
        (
            "fp32",
            loss_of(auroc=0.9, au_pro=0.69),
            "fp32 scores: on faint synthetic anomalies int8 has AUROC 0.9000 (fp32 0.9000) and AU-PRO 0.6900 (fp32 "
            "0.7000), 0.003 or more is lost",
        ),
        (
            "int8",
            loss_of(auroc=0.89),
            "int8 scores: requested at export; on faint synthetic anomalies int8 has AUROC 0.8900 (fp32 0.9000), 0.003 "
            "or more is lost",
        ),
    ],
)
def test_which_model_scores_and_why(int8_kit: Path, default: str, loss: AccuracyLoss | None, sentence: str) -> None:
    assert describe_default_model(with_default(int8_kit, default, loss)) == sentence


@pytest.mark.parametrize(
    ("loss", "is_small"),
    [
        (loss_of(auroc=0.8971), True),
        (loss_of(auroc=0.8969), False),
        (loss_of(auroc=0.95, au_pro=0.6971), True),
        (loss_of(auroc=0.95, au_pro=0.6969), False),
    ],
)
def test_a_loss_is_small_if_both_figures_fall_by_less_than_0_3_points(loss: AccuracyLoss, is_small: bool) -> None:
    assert loss.is_small is is_small
