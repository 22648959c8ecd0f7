from pathlib import Path

import numpy as np
import pytest

from msc_edge.calibration import Calibration, Limit, Limits
from msc_edge.kit.opening import Kit
from msc_edge.studio.results import Results, ScoredImage


@pytest.fixture
def results(toy_kit: Path) -> Results:
    """Labelled images with random scores, some of them equal."""
    with Kit.open(toy_kit) as kit:
        manifest = kit.manifest
    random = np.random.default_rng(0)
    labels = random.choice(["good", "dent", "scratch"], 60).tolist()
    scores = random.integers(0, 20, 60) / 100
    images = (
        ScoredImage(index, f"{label}/{index}.png", Path(f"{index}.png"), label, float(score), 0.5, None)
        for index, (label, score) in enumerate(zip(labels, scores, strict=True))
    )
    return Results(toy_kit, manifest, tuple(images), None)


@pytest.mark.parametrize("score", [-1.0, 0.0, 0.05, 0.1, 0.12345, 0.19, 1.0])
def test_the_verdicts_at_any_limit_are_those_of_a_count(results, score):
    at = results.at(score)
    assert at.false_alarms == sum(each.label == "good" and each.score > score for each in results.images)
    assert at.missed == sum(each.label != "good" and not each.score > score for each in results.images)
    assert len(results.false_alarms(score)) == at.false_alarms
    assert len(results.missed(score)) == at.missed
    assert len(results.found(score)) + at.missed == at.anomalous_images
    for name, images, rejected in results.types_at(score):
        own = [each.score for each in results.images if each.label == name]
        assert (images, rejected) == (len(own), sum(each > score for each in own))


def test_the_verdicts_at_another_limit_are_those_of_a_kit_with_it(results):
    warn = results.limits.warn
    for score in (-1.0, warn.score - 0.01, warn.score, warn.score + 0.03, 0.3):
        limits = Limits(warn=warn, reject=Limit(score=score, target_rate=None, expected_rate=None))
        assert [results.verdict(image, score) for image in results.images] == [
            limits.verdict(image.score) for image in results.images
        ]
        flagged = [each for each in results.images if each.label == "good" and limits.verdict(each.score) != "normal"]
        alarms = [*results.false_alarms(score), *results.warned(score)]
        assert sorted(each.index for each in alarms) == [each.index for each in flagged]


def test_the_nearest_images_enclose_the_limit(results):
    near = results.near(0.1)
    assert [image.score for image in near] == sorted(image.score for image in near)
    farthest = max(abs(image.score - 0.1) for image in near)
    assert all(abs(image.score - 0.1) >= farthest for image in results.images if image not in near)


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("size", [1, 4])
def test_the_rate_of_a_limit_gives_this_limit(results, count, size, monkeypatch):
    """What the page offers as the rate of a place, export turns into a limit at this place."""
    random = np.random.default_rng(count)
    calibration = Calibration(random.normal(size=size * count), np.repeat(np.arange(count), size))
    monkeypatch.setattr(Results, "calibration", calibration)
    for score in calibration.scores:
        rate = results.rate_of(float(score))
        assert 0 < rate <= 1
        if rate < 1:
            assert calibration.limit(rate).score == score
    assert results.highest_limit == calibration.limit(1e-6).score


def test_without_labelled_images_there_are_no_counts(toy_kit):
    with Kit.open(toy_kit) as kit:
        results = Results(toy_kit, kit.manifest, (), None)
    low, high = results.range
    assert results.at(low) is None
    assert low <= results.limits.warn.score <= results.limits.reject.score <= high
