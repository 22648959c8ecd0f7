import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from msc_edge.runtime import Detector
from msc_edge.runtime.tools.compare.comparison import Comparison, auroc_difference, compute_comparison
from msc_edge.runtime.tools.evaluate.labelled import labelled_folders


def test_kits_that_score_alike_have_no_difference():
    random = np.random.default_rng(0)
    truth = np.repeat([0, 1], 30)
    scores = random.normal(size=60) + truth
    found = auroc_difference(truth, np.stack([scores, 3 * scores + 1], axis=1), resamples=100)  # the order counts
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_difference_of_a_perfect_and_a_reversed_kit_is_one():
    truth = np.repeat([0, 1], 10)
    found = auroc_difference(truth, np.stack([-truth, truth], axis=1).astype(float), resamples=100)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_the_interval_covers_the_true_difference_as_often_as_stated():
    """Both kits see the same signal with independent noise of equal size: the true difference is 0."""
    random = np.random.default_rng(1)
    truth, covered = np.repeat([0, 1], 60), 0
    for seed in range(60):
        signal = random.normal(size=120) + 1.5 * truth
        scores = signal[:, None] + random.normal(size=(120, 2))
        found = auroc_difference(truth, scores, resamples=200, seed=seed)
        covered += found.low <= 0 <= found.high
    assert covered >= 51  # 57 expected of 60; fewer than 51 has a probability below 1 %


def test_the_difference_is_that_of_scikit_learn():
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, 200)
    scores = random.integers(0, 15, (200, 2)) / 10  # with ties
    found = auroc_difference(truth, scores, resamples=10)
    assert found.value == pytest.approx(roc_auc_score(truth, scores[:, 1]) - roc_auc_score(truth, scores[:, 0]))


def test_paired_resampling_knows_that_both_kits_see_the_same_images():
    random = np.random.default_rng(2)
    truth = np.repeat([0, 1], 40)
    first = random.normal(size=80) + truth
    scores = np.stack([first, first + 0.01 * random.normal(size=80)], axis=1)
    found = auroc_difference(truth, scores, resamples=200)
    assert found.high - found.low < 0.02  # each AUROC alone has an interval of more than 0.1


@pytest.fixture
def dataset(photos: Path, tmp_path: Path):
    names = sorted(path.name for path in photos.glob("*.png"))
    for label, own in (("good", names[::2]), ("odd", names[1::2])):
        (tmp_path / label).mkdir()
        for name in own:
            shutil.copy(photos / name, tmp_path / label / name)
    (tmp_path / "odd" / "broken.png").write_bytes(b"no image")
    return labelled_folders([tmp_path / "good"], [tmp_path / "odd"])


def test_a_kit_compared_with_itself(toy_kit, dataset):
    result = compute_comparison((toy_kit, toy_kit), dataset, resamples=100)
    one, other = result.kits
    assert one.model_copy(update={"milliseconds": 0}) == other.model_copy(update={"milliseconds": 0})
    assert result.auroc_difference.value == 0
    assert result.unreadable == 3  # with two of `photos`
    assert len(result.images) == result.normal_images + result.anomalous_images == len(dataset.images) - 3
    assert all(len(set(image.verdicts)) == len(set(image.scores)) == 1 for image in result.images)
    assert Comparison.model_validate(json.loads(result.model_dump_json())) == result


def test_each_image_has_the_regions_of_both_kits(toy_kit, patch_kit, dataset):
    found = compute_comparison((toy_kit, patch_kit), dataset, resamples=100)
    detector = Detector.load(patch_kit, threads=1)
    # The first kit compares whole images only.
    assert [image.regions for image in found.images] == [
        (None, len(detector.score_file(image.path).regions)) for image in found.images
    ]
    assert len({image.regions for image in found.images}) > 1
