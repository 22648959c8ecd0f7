"""Verdicts of real images beside the regions of their heatmaps, with limits that make them differ."""

from dataclasses import replace

import pytest

from msc_edge.runtime import Detector
from msc_edge.runtime.results.result import Result
from msc_edge.studio.agreement import explain_disagreement


@pytest.fixture(scope="module")
def detector(patch_kit) -> Detector:
    return Detector.load(patch_kit, threads=1)


@pytest.mark.parametrize(
    ("defect", "verdict", "words"),
    [
        (None, "normal", None),
        (None, "warn", "Warning, although the heatmap has no region"),
        (None, "reject", "Rejected, although the heatmap has no region"),
        ("stain", "normal", "Normal, although the heatmap has a region"),
        ("stain", "warn", None),
        ("stain", "reject", None),
    ],
)
def test_a_difference_is_explained_and_agreement_is_not(detector, toy, defect, verdict, words):
    result = replace(detector.score_decoded(toy.draw(100, defect)), verdict=verdict)  # as with other limits
    assert bool(result.regions) == (defect is not None)
    text = explain_disagreement(result, detector.scoring)
    assert text.startswith(words) if words else text == ""


def test_the_text_says_which_part_of_the_score_is_above_the_limit(detector, toy):
    lowered = detector.with_limits(threshold=detector.scoring.possible_scores[0])
    found = [lowered.score_decoded(toy.draw(seed)) for seed in range(100, 130)]
    parts = {"image": "differs as a whole", "patch": "Its most anomalous part is below the limit of the heatmap"}
    seen = set()
    for result in found:
        if result.regions:
            continue
        # By the definition of the score: the larger one of the two, each standardised.
        part = "image" if is_of_the_image(result, detector) else "patch"
        seen.add(part)
        assert parts[part] in explain_disagreement(result, detector.scoring)
    assert seen == set(parts)


def is_of_the_image(result: Result, detector: Detector) -> bool:
    scale = detector.scoring.image
    assert scale
    return result.score == pytest.approx((result.image_score - scale.mean) / scale.deviation)


def test_a_kit_without_heatmaps_has_nothing_to_explain(toy_kit, toy):
    detector = Detector.load(toy_kit, threads=1)
    result = detector.score_decoded(toy.draw(200, "scratch"))
    assert result.verdict == "reject"
    assert explain_disagreement(result, detector.scoring) == ""
