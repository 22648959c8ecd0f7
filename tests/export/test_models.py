"""Kits of images that were held out in turn: their calibration, and the gates of their int8 model."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.bank import Bank
from msc_edge.calibration import Calibration
from msc_edge.export.pack import export
from msc_edge.kit.manifest import Manifest, Precision
from msc_edge.kit.model_entry import HELD_OUT_IN_TURN
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.scoring import calibration_scores
from msc_edge.train.patches.run_files import read_head
from msc_edge.train.run_record import CALIBRATION, PATCH_CALIBRATION, PATCHES, read_record


@pytest.fixture(scope="module")
def run(train_on: Callable, drawn_parts: Path) -> Path:
    """A frozen run of edge-small over the drawn parts, in pairs of images of one part."""
    options = {"backbone": "edge-small", "weights": None, "stop_at": None, "image_size": 64, "scores": "both"}
    return train_on(drawn_parts, **options, patch_rows=200, group_by="part_([0-9]*)[0-9]")


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("kits") / "in-turn"
    return out, export(run, out)


def test_all_images_are_in_the_bank_and_in_the_calibration(run: Path, made: tuple[Path, Manifest]) -> None:
    assert read_record(run).in_turn
    model = made[1].models["fp32"]
    assert made[1].normal_images.count == model.banks.images.count == len(model.calibration.scores) == 40
    assert len(set(model.calibration.groups or ())) == 4
    assert model.calibration.reason == HELD_OUT_IN_TURN


def test_the_calibration_of_the_kit_is_that_of_training(run: Path, made: tuple[Path, Manifest]) -> None:
    model = made[1].models["fp32"]
    image, patch = np.load(run / CALIBRATION), np.load(run / PATCH_CALIBRATION)
    expected = sorted(calibration_scores("both", image, patch, model.scoring.map))
    assert model.calibration.scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert model.calibration.regions is not None
    assert model.calibration.regions.patch_scores == pytest.approx(sorted(patch), rel=1e-4)


def test_a_patch_bank_knows_the_image_of_each_row(run: Path) -> None:
    images = read_head(run / PATCHES).images
    assert images.shape == (200,)
    assert set(images.tolist()) <= set(range(40))
    assert len(set(images.tolist())) > 20


def test_its_images_are_at_no_distance_and_new_ones_are(
    made: tuple[Path, Manifest], drawn_parts: Path, toy: ModuleType
) -> None:
    detector = Detector.load(made[0], threads=1)
    for path in sorted(drawn_parts.iterdir())[::9]:
        result = detector.score_file(path)
        assert result.is_in_bank
        assert result.verdict == "normal"
    assert not detector.score(toy.draw(900)).is_in_bank


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_scores_of_a_model_are_those_against_its_own_bank_without_the_group(
    made: tuple[Path, Manifest], precision: Precision
) -> None:
    """Image scores, from the bank of the kit; `HeldOutModel` is compared with training above."""
    model = made[1].models.get(precision)
    if model is None:
        pytest.fail(f"no {precision} model")
    with Kit.open(made[0]) as kit:
        rows = kit.embeddings(precision)
    names = sorted(range(40))
    groups = np.array(names) // 10
    image = np.array([Bank(rows[groups != group]).score(row) for row, group in zip(rows, groups, strict=True)])
    assert model.scoring.image is not None
    assert model.scoring.image.mean == pytest.approx(image.mean(), rel=1e-6)
    assert model.scoring.image.deviation == pytest.approx(max(image.std(ddof=1), 0.01 * image.mean()), rel=1e-6)


def test_the_gates_of_int8_compare_images_that_are_in_no_bank(made: tuple[Path, Manifest]) -> None:
    int8 = made[1].models["int8"]
    assert int8.agreement is not None
    assert int8.agreement.normal_images == 10  # one group of ten, held out once
    assert int8.banks.images.count == len(int8.calibration.scores) == 40
    assert int8.agreement.auroc < 1  # an image of the bank would be below every anomaly
    detector = Detector.load(made[0], threads=1, precision="int8")
    assert detector.calibration.scores.tolist() == int8.calibration.scores


def test_new_parts_are_above_the_limit_about_as_often_as_stated(
    train_on: Callable, drawn_parts: Path, tmp_path: Path, toy: ModuleType
) -> None:
    manifest = export(train_on(drawn_parts, group_by=None), tmp_path / "kit", precision="fp32", thumbnails=False)
    model = manifest.models["fp32"]
    limit = Calibration(model.calibration.scores).limit(0.1)
    detector = Detector.load(tmp_path / "kit", threads=1)
    found = sum(detector.score(toy.draw(seed)).score > limit.score for seed in range(1000, 1200))
    # 200 images; the true rate of a limit by four of 40 images lies between 3 and 20 % with 99 %.
    assert limit.expected_rate == pytest.approx(4 / 41)
    assert 2 <= found <= 48
