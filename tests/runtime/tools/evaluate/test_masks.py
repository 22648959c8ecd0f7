from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from msc_edge.errors import SourceError
from msc_edge.map_metrics.metrics import MapEvaluation
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.runtime.tools.evaluate.masks import MapEvaluationResult, MaskedMaps, read_mask, regions_of_normal_images
from msc_edge.runtime.tools.evaluate.run import evaluate


@pytest.fixture
def dataset(tmp_path, toy, save) -> Path:
    """Stains around (50, 12) with their masks, one image without a mask and one with a black one."""
    folder = tmp_path / "set"
    for seed in range(6):
        save(folder / "test" / "good" / f"{seed}.png", toy.draw(400 + seed))
        save(folder / "test" / "stain" / f"{seed}.png", toy.draw(500 + seed, "stain"))
    mask = cv2.circle(np.zeros((48, 64, 3), np.uint8), (50, 12), 8, (255, 255, 255), -1)
    for name in ("0.png", "1_mask.png", "2.bmp", "3.png"):
        save(folder / "ground_truth" / "stain" / name, mask)
    save(folder / "ground_truth" / "stain" / "4.png", np.zeros_like(mask))
    return folder


@pytest.fixture
def patches(patch_kit: Path) -> Detector:
    return Detector.load(patch_kit, threads=1)


def masked_maps(dataset: Path, detector: Detector) -> MaskedMaps:
    """The maps of all images of a data set."""
    labelled = labelled_dataset(dataset)
    maps = MaskedMaps(labelled)
    for image in labelled.images:
        maps.add(image, detector.score_file(image.path))
    return maps


def test_maps_are_compared_with_the_masks_that_exist(dataset: Path, patches: Detector) -> None:
    labelled = labelled_dataset(dataset)
    maps, expected = MaskedMaps(labelled), MapEvaluation()
    truth = cv2.circle(np.zeros((48, 64), np.uint8), (50, 12), 8, 255, -1) > 0
    for image in labelled.images:
        result = patches.score_file(image.path, heatmap=True)
        maps.add(image, result)
        assert result.anomaly_map is not None
        if not image.is_anomalous:
            expected.add(result.anomaly_map, None, "")
        elif image.path.stem in "0123":
            expected.add(result.anomaly_map, truth, "stain")
    result, expectation = maps.result(), expected.result()
    assert result
    found, overall = result.evaluation, expectation.overall
    assert (found.images, found.without_mask) == (4, 2)
    assert overall.au_pro_30
    assert overall.pixel_auroc
    assert found.au_pro_30.value == overall.au_pro_30.value > 0.7
    assert found.pixel_auroc.value == overall.pixel_auroc.value > 0.9
    assert [each.name for each in found.defect_types] == ["stain"]
    assert expectation.image_aupimo
    assert [each.aupimo for each in result.images] == [each.value for each in expectation.image_aupimo]
    assert [each.label.path.stem for each in result.images] == ["0", "1", "2", "3"]


def test_the_overlap_is_that_of_the_mask_and_the_values_above_the_limit(dataset: Path, patches: Detector) -> None:
    labelled = labelled_dataset(dataset)
    maps = MaskedMaps(labelled)
    expected = []
    truth = cv2.circle(np.zeros((48, 64), np.uint8), (50, 12), 8, 255, -1) > 0
    for image in labelled.images:
        result = patches.score_file(image.path, heatmap=True)
        maps.add(image, result)
        if image.is_anomalous and image.path.stem in "0123":
            assert result.anomaly_map is not None
            assert result.grid_map is not None
            pairs = zip((result.anomaly_map > result.grid_map.limit).ravel(), truth.ravel(), strict=True)
            counts = Counter(sum(map(bool, pair)) for pair in pairs)
            expected.append(
                (counts[2] / (counts[1] + counts[2]), result.anomaly_map[truth].max() / result.grid_map.limit)
            )
    found = maps.result()
    assert found
    assert [each.overlap for each in found.images] == pytest.approx([overlap for overlap, _ in expected])
    assert [each.peak for each in found.images] == pytest.approx([peak for _, peak in expected])
    assert all(each.overlap > 0.2 for each in found.images)


@pytest.mark.parametrize(("normal_images", "side", "resolved"), [(10, 100, True), (9, 100, False), (1, 400, True)])
def test_aupimo_is_resolved_by_a_hundred_thousand_normal_pixels(
    dataset: Path, patches: Detector, toy, save, normal_images: int, side: int, resolved: bool
) -> None:
    for path in (dataset / "test" / "good").iterdir():
        path.unlink()
    for seed in range(normal_images):
        large = cv2.resize(toy.draw(seed), (side, side))
        save(dataset / "test" / "good" / f"{seed}.png", large)
    maps = masked_maps(dataset, patches)
    found = maps.result()
    assert found
    assert found.evaluation.fpr_step == pytest.approx(1 / (normal_images * side * side))
    assert found.evaluation.aupimo_is_resolved == resolved


def test_a_result_of_an_older_version_has_no_step_and_is_read(dataset: Path, patches: Detector) -> None:
    maps = masked_maps(dataset, patches)
    result = maps.result()
    assert result
    document = result.evaluation.model_dump()
    del document["fpr_step"]
    assert not MapEvaluationResult.model_validate(document).aupimo_is_resolved


def test_a_mask_of_another_size_is_compared_at_its_own(dataset: Path, patches: Detector, save) -> None:
    large = cv2.circle(np.zeros((96, 128, 3), np.uint8), (101, 25), 16, (255, 255, 255), -1)
    for name in ("0.png", "3.png"):
        save(dataset / "ground_truth" / "stain" / name, large)
    maps = masked_maps(dataset, patches)
    found = maps.result()
    assert found
    assert found.evaluation.pixel_auroc.value > 0.9


def test_a_mask_that_cannot_be_read_is_an_error(dataset: Path, patches: Detector) -> None:
    (dataset / "ground_truth" / "stain" / "0.png").write_bytes(b"no image")
    labelled = labelled_dataset(dataset)
    maps = MaskedMaps(labelled)
    (image,) = [each for each in labelled.images if each.label == "stain" and each.path.stem == "0"]
    with pytest.raises(SourceError, match=r"0\.png: this mask cannot be read"):
        maps.add(image, patches.score_file(image.path))


def test_without_masks_or_without_a_map_there_is_no_result(
    dataset: Path, patches: Detector, detector: Detector
) -> None:
    labelled = labelled_dataset(dataset)
    without_map = MaskedMaps(labelled)
    for image in labelled.images:
        without_map.add(image, detector.score_file(image.path))
    assert without_map.result() is None
    for path in (dataset / "ground_truth").rglob("*.*"):
        path.unlink()
    without_masks = MaskedMaps(labelled)
    for image in labelled.images:
        without_masks.add(image, patches.score_file(image.path))
    assert without_masks.result() is None


def test_normal_images_with_a_region_are_counted(patches: Detector, toy) -> None:
    regions = patches.manifest.models["fp32"].calibration.regions
    assert regions
    results = [patches.score(toy.draw(seed)) for seed in range(600, 640)]
    found = regions_of_normal_images(regions, results)
    assert found.with_region == sum(bool(result.regions) for result in results)
    assert found.interval == regions.calibration.alarm_interval(regions.limit, 40)


def test_an_evaluation_has_maps_and_regions_in_json_and_report(dataset: Path, patch_kit: Path, tmp_path: Path) -> None:
    evaluation = evaluate(patch_kit, dataset, tmp_path / "out", resamples=20, threads=1)
    assert evaluation.maps
    assert evaluation.regions
    assert evaluation.model_validate_json((tmp_path / "out" / "evaluation.json").read_text()) == evaluation
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Heatmaps against masks" in page
    assert f"{evaluation.maps.au_pro_30.value:.4f}" in page
    assert "region in the heatmap" in page


def test_masks_of_zeros_and_ones_are_masks(tmp_path: Path, save) -> None:
    levels = np.zeros((6, 8, 3), np.uint8)
    levels[1:3, 2:5] = 1
    save(tmp_path / "ones.png", levels)
    save(tmp_path / "white.png", levels * 255)
    np.testing.assert_array_equal(read_mask(tmp_path / "ones.png"), levels[..., 0] > 0)
    np.testing.assert_array_equal(read_mask(tmp_path / "white.png"), levels[..., 0] > 0)


def test_a_mask_of_another_shape_is_an_error(dataset: Path, patch_kit: Path, save, tmp_path: Path) -> None:
    mask = next(path for path in sorted(dataset.rglob("ground_truth/*/*.png")) if read_mask(path).any())
    height, width = read_mask(mask).shape
    save(mask, np.full((height, 2 * width, 3), 255, np.uint8))
    with pytest.raises(SourceError, match=f"{mask.name}: this mask is {2 * width}x{height} pixels"):
        evaluate(patch_kit, dataset, tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_masks_of_another_size_give_the_same_metrics(dataset: Path, patches: Detector, save) -> None:
    expected = masked_maps(dataset, patches).result()
    for path in dataset.glob("ground_truth/*/*.*"):
        mask = read_mask(path)[..., None].repeat(3, axis=2).astype(np.uint8) * 255
        save(path, mask.repeat(2, axis=0).repeat(2, axis=1))
    assert expected
    assert masked_maps(dataset, patches).result() == expected


def test_masks_that_are_all_black_are_an_error(dataset: Path, patch_kit: Path, tmp_path: Path, save) -> None:
    for path in dataset.glob("ground_truth/*/*.*"):
        save(path, np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(SourceError, match="stain: all masks of the data set are black; paint white"):
        evaluate(patch_kit, dataset, tmp_path / "out", threads=1)


def test_masks_that_belong_to_no_image_are_an_error_where_maps_are_evaluated(
    dataset: Path, patch_kit: Path, toy_kit: Path, tmp_path: Path
) -> None:
    for path in dataset.glob("ground_truth/*/*.*"):
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(SourceError, match="none of its files is the mask of an image"):
        evaluate(patch_kit, dataset, tmp_path / "out", threads=1)
    evaluate(toy_kit, dataset, tmp_path / "whole", resamples=20, threads=1)  # compares whole images only
