"""Kits with tiles and an ignore mask, from training to the runtime."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.bank import Bank
from msc_edge.export.pack import export
from msc_edge.export.parity import TorchScorer, unit_of
from msc_edge.kit.manifest import Manifest
from msc_edge.preprocessing import Tiles
from msc_edge.runtime import Detector
from msc_edge.train.patches.run_files import read_head
from msc_edge.train.run_record import BANK, PATCHES

pytestmark = pytest.mark.slow  # exports two kits with tiles


@pytest.fixture(scope="module")
def run(
    train_on: Callable,
    drawn_parts: Path,
    tmp_path_factory: pytest.TempPathFactory,
    layer3_weights: Path,
    save: Callable,
    toy: ModuleType,
) -> Path:
    """A run over the drawn parts with two tiles, one above the other, whose right quarter is ignored."""
    height, width = toy.draw(0).shape[:2]
    white = np.zeros((height, width, 3), np.uint8)
    white[:, 3 * width // 4 :] = 255
    mask = tmp_path_factory.mktemp("mask") / "mask.png"
    save(mask, white)
    return train_on(
        drawn_parts,
        weights=layer3_weights,
        stop_at="layer3",
        image_size=96,
        tiles=Tiles.parse("2x1", image_size=96),
        ignore_mask=mask,
        scores="both",
        patch_rows=50,
    )


@pytest.fixture(scope="module")
def kit(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("kits") / "tiles.kit"
    return out, export(run, out, precision="fp32", warn_rate=0.2, reject_rate=0.1, region_rate=0.25)


@pytest.fixture(scope="module")
def detector(kit: tuple[Path, Manifest]) -> Detector:
    return Detector.load(kit[0], threads=1)


def test_the_map_covers_the_canvas(kit: tuple[Path, Manifest]) -> None:
    spec, patches = kit[1].preprocessing, kit[1].models["fp32"].outputs.patch_distances
    assert patches is not None
    assert spec.canvas == (160, 96)
    assert (patches.rows, patches.columns, patches.stride) == (10, 6, 16)


def test_maps_and_scores_are_those_of_training(
    detector: Detector, run: Path, network_of: Callable, toy: ModuleType
) -> None:
    reference = TorchScorer(network_of(run), Bank(np.load(run / BANK)), read_head(run / PATCHES), detector.scoring)
    for height, width in ((48, 64), (160, 96), (270, 200)):
        frame = np.ascontiguousarray(np.resize(toy.draw(3), (height, width, 3)))
        score, output = reference.score(frame)
        found = detector.run(frame)
        assert found.patch_distances == pytest.approx(output.patch_distances, rel=1e-4, abs=1e-4)
        assert detector.score(frame).score == pytest.approx(score, abs=1e-6 * unit_of(detector.scoring))


def test_nothing_is_seen_where_the_mask_is_white(detector: Detector, toy: ModuleType) -> None:
    image = toy.draw(100)
    width = image.shape[1]
    changed = image.copy()
    changed[:, 3 * width // 4 + 2 :] = 255 - changed[:, 3 * width // 4 + 2 :]  # two pixels: the resize reads beyond
    before, after = detector.score(image, heatmap=True), detector.score(changed, heatmap=True)
    assert after.score == pytest.approx(before.score, abs=1e-5)
    assert after.anomaly_map is not None
    assert before.anomaly_map is not None
    np.testing.assert_allclose(after.anomaly_map, before.anomaly_map, atol=1e-5)
    # Only what the blur of the map brings from the other patches.
    assert after.anomaly_map[:, 15 * width // 16 :].max() < 0.2 * after.anomaly_map.max()


def test_a_defect_beside_the_mask_is_found_in_its_place(detector: Detector, toy: ModuleType) -> None:
    image = toy.draw(101)
    height, width = image.shape[:2]
    image[height * 5 // 8 : height * 7 // 8, width // 8 : width * 3 // 8] = (255, 0, 255)
    result = detector.score(image, heatmap=True)
    assert result.anomaly_map is not None
    row, column = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
    assert 0.5 < row / height < 1
    assert 0 <= column / width < 0.5
    assert result.patch_score is not None
    assert result.patch_score > 1.2 * (detector.score(toy.draw(101)).patch_score or np.inf)
