"""Detectors that have learned: scores against banks that were built with the additions inside."""

from types import ModuleType

import numpy as np
import pytest

from msc_edge.anomaly_map import patch_score
from msc_edge.bank import Bank
from msc_edge.patch_rows import ROUNDING
from msc_edge.runtime import Detector
from msc_edge.runtime.additions import Addition, Additions, LearnedRows
from msc_edge.runtime.results.result import Result

COLOURED = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def addition(detector: Detector, image: np.ndarray, number: int = 1) -> Addition:
    """All patches of an image."""
    output = detector.run(image)
    assert output.patch_embeddings is not None
    rows = LearnedRows(output.embedding, output.patch_embeddings.reshape(-1, output.patch_embeddings.shape[2]))
    return Addition(number, f"part_{number}.png", rows, COLOURED)


def parts(result: Result) -> tuple[float, float | None, float]:
    return result.image_score, result.patch_score, result.score


def test_an_addition_counts_as_k_rows_and_as_rows_of_the_patch_bank(patches: Detector, toy: ModuleType) -> None:
    images = [toy.draw(seed, "stain") for seed in (100, 101)]
    learned = Additions([addition(patches, image, number) for number, image in enumerate(images, start=1)])
    detector = patches.with_additions(learned)
    for seed in range(200, 210):
        image = toy.draw(seed, "stain" if seed % 2 else None)
        output = patches.run(image)
        assert output.patch_embeddings is not None
        assert output.patch_distances is not None
        rows = np.concatenate([patches.bank.embeddings, learned.embeddings.repeat(2, axis=0)])
        added = np.concatenate([each.rows.patches for each in learned.learned])
        apart = np.linalg.norm(output.patch_embeddings[:, :, None] - added, axis=3).min(axis=2)
        apart = np.maximum(apart, np.sqrt(ROUNDING) * np.linalg.norm(output.patch_embeddings, axis=2))
        result = detector.score(image)
        assert result.image_score == Bank(rows).score(output.embedding)
        smoothing = patches.scoring.map.smoothing if patches.scoring.map else 0.0
        expected = patch_score(np.minimum(output.patch_distances, apart), smoothing=smoothing)
        assert result.patch_score == pytest.approx(expected, rel=1e-4)
        assert result.score == patches.scoring.score(result.image_score, result.patch_score)


def test_scores_can_only_fall_and_the_image_itself_is_normal(patches: Detector, toy: ModuleType) -> None:
    image = toy.draw(100, "stain")
    assert patches.score(image).verdict == "reject"
    detector = patches.with_additions(Additions([addition(patches, image)]))
    assert detector.score(image).verdict == "normal"
    for seed in range(200, 230):
        for defect in (None, "scratch", "stain"):
            before, after = patches.score(toy.draw(seed, defect)), detector.score(toy.draw(seed, defect))
            assert after.image_score <= before.image_score
            assert after.patch_score is not None
            assert before.patch_score is not None
            assert after.patch_score <= before.patch_score
            assert after.score <= before.score


def test_the_detector_before_is_not_changed_and_without_additions_scores_are_the_same_to_the_last_digit(
    patches: Detector, toy: ModuleType
) -> None:
    images = [toy.draw(seed, "scratch") for seed in range(5)]
    before = [parts(patches.score(image)) for image in images]
    learned = patches.with_additions(Additions([addition(patches, images[0])]))
    assert [parts(learned.score(image)) for image in images] != before
    assert [parts(patches.score(image)) for image in images] == before
    assert patches.with_additions(Additions()) is patches
    with pytest.raises(ValueError, match="has additions already"):
        learned.with_additions(Additions([addition(patches, images[1])]))


def test_the_nearest_normal_image_may_be_a_learned_one_and_has_its_thumbnail(
    patches: Detector, toy: ModuleType
) -> None:
    image = toy.draw(100, "stain")
    detector = patches.with_additions(Additions([addition(patches, image, 7)]))
    nearest = detector.score(image).nearest_images
    assert [each.path for each in nearest] == ["learned 7: part_7.png"] * 2
    for each in nearest:
        assert (detector.thumbnail(each.row) == COLOURED).all()
    assert (detector.thumbnail(0) == patches.thumbnail(0)).all()


def test_limits_are_those_of_the_kit(patches: Detector, toy: ModuleType) -> None:
    detector = patches.with_additions(Additions([addition(patches, toy.draw(100, "stain"))]))
    assert detector.limits == patches.limits
    assert detector.with_limits(threshold=3.0).additions is detector.additions


def test_a_kit_that_compares_whole_images_learns_these_only(detector: Detector, toy: ModuleType) -> None:
    image = toy.draw(100, "empty")
    output = detector.run(image)
    rows = LearnedRows(output.embedding, np.empty((0, 1), np.float32))
    learned = detector.with_additions(Additions([Addition(1, "a.png", rows, COLOURED)]))
    assert detector.score(image).verdict == "reject"
    assert learned.score(image).score == pytest.approx(0, abs=1e-6)
    assert learned.score(image).patch_score is None
