"""Limits of a detector: thresholds and rates that are set by hand, and what follows from them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from msc_edge.errors import UsageError


class TestLimits:
    def test_a_threshold_rejects_larger_scores_and_no_others(self, detector):
        moved = detector.with_limits(threshold=0.3)
        assert [moved.limits.verdict(score) for score in (0.3, 0.300001)] == ["warn", "reject"]
        assert moved.limits.warn == detector.limits.warn
        assert moved.limits.reject.expected_rate is None

    def test_a_threshold_below_the_warn_limit_leaves_no_warnings(self, detector):
        moved = detector.with_limits(threshold=0.001)
        assert [moved.limits.verdict(score) for score in (0.001, 0.002, 0.1)] == ["normal", "reject", "reject"]

    @pytest.mark.parametrize(("rate", "flagged"), [(0.08, 1), (0.16, 2), (0.5, 6), (0.999, 12)])
    def test_a_target_rate_flags_at_most_that_share_of_the_held_out_images_and_a_new_one(self, detector, rate, flagged):
        moved = detector.with_limits(false_alarm_rate=rate)
        # Of 13 exchangeable images, the 12 held-out ones and a new one, `flagged` have p <= rate.
        assert moved.limits.reject.expected_rate == pytest.approx(flagged / 13)
        assert sum(moved.calibration.p_value(score) <= rate for score in moved.calibration.scores) == flagged - 1

    def test_a_score_equal_to_both_limits_is_normal_and_none_is_a_warning(self, detector):
        limit = detector.limits.warn.score
        for threshold in (limit, limit - 1e-3):
            limits = detector.with_limits(threshold=threshold).limits
            assert limits.warn.score == limits.reject.score == threshold
            assert [limits.verdict(threshold + step) for step in (-1e-9, 0, 1e-9)] == ["normal", "normal", "reject"]

    def test_the_limit_of_the_map_is_in_the_result_and_does_not_move(self, detector, patches, toy):
        image = toy.draw(200, "stain")
        regions = patches.manifest.models["fp32"].calibration.regions
        for each in (patches, patches.with_limits(threshold=50.0)):
            assert each.score(image).region_limit == regions.limit.score
        assert detector.score(image).region_limit is None

    def test_the_patch_score_is_the_peak_of_the_grid_which_pixels_between_its_positions_do_not_reach(
        self, patches, toy
    ):
        for seed in range(200, 206):
            result = patches.score(toy.draw(seed, "stain")[:45, :61], heatmap=True)
            assert result.patch_score == result.grid_map.grid.max()
            assert 0.8 * result.patch_score < result.anomaly_map.max() <= result.patch_score * (1 + 1e-6)
            assert result.regions[0].peak == pytest.approx(result.patch_score, rel=1e-6)

    def test_a_threshold_of_numpy_is_a_number_in_the_result(self, detector, toy):
        result = detector.with_limits(threshold=np.float32(0.5)).score(toy.draw(100))
        assert json.loads(json.dumps(result.to_dict()))["limit"] == 0.5

    def test_without_options_the_limits_stay(self, detector):
        assert detector.with_limits() == detector

    @pytest.mark.parametrize(
        "wrong",
        [
            {"false_alarm_rate": 0.0},
            {"false_alarm_rate": 1.0},
            {"false_alarm_rate": -0.1},
            {"false_alarm_rate": float("nan")},
            {"threshold": float("nan")},
            {"threshold": float("inf")},
            {"threshold": 0.1, "false_alarm_rate": 0.1},
            {"threshold": "0.1"},
            {"threshold": True},
            {"false_alarm_rate": "0.1"},
            {"false_alarm_rate": [0.1]},
        ],
        ids=str,
    )
    def test_impossible_requests_are_refused(self, detector, wrong):
        with pytest.raises(UsageError):
            detector.with_limits(**wrong)

    def test_a_threshold_that_no_image_can_have_is_refused(self, detector, patches):
        limit = rf"the limit of the kit is {detector.limits.reject.score:.6g}$"
        with pytest.raises(
            UsageError, match=rf"no score of this kit is above 2, so no image would be rejected; {limit}"
        ):
            detector.with_limits(threshold=2.1)
        with pytest.raises(UsageError, match="so every image would be rejected"):
            detector.with_limits(threshold=-0.1)
        with pytest.raises(UsageError, match="so no image would be rejected"):
            patches.with_limits(threshold=1e300)

    def test_a_threshold_far_above_the_scores_of_normal_images_is_a_warning(self, detector, patches, caplog):
        least, most = detector.calibration.scores[[0, -1]]
        detector.with_limits(threshold=most + 9 * (most - least))
        assert not caplog.records
        for each, threshold in ((detector, most + 11 * (most - least)), (patches, 999.0)):
            caplog.clear()
            each.with_limits(threshold=threshold)
            assert "is far above the scores of normal images" in caplog.text
            assert f"{each.calibration.scores[-1]:.6g}" in caplog.text

    def test_scores_do_not_depend_on_the_limits(self, toy, detector):
        image = toy.draw(100, "stain")
        result = detector.score(image)
        moved = detector.with_limits(threshold=1.9).score(image)
        assert (moved.verdict, moved.limit) == ("warn", 1.9)
        assert moved.p_value is None, "a limit that was set by hand has no rate that a p-value could be compared with"
        assert replace(moved, verdict=result.verdict, limit=result.limit, p_value=result.p_value) == result
