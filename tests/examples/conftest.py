"""A kit of real images, its single file, and 200 images with what the kit makes of them."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msc_edge.export.fused.writing import fuse_kit
from msc_edge.export.pack import export
from msc_edge.image_files import find_images
from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.runtime.results.result import Result
from msc_edge.train.options import TrainingOptions
from msc_edge.train.training import train

SHARED = Path(__file__).parents[3] / "shared"
NODE_MODULES = Path(__file__).parent / "node_modules"
EVERY = 211  # of the values of anomaly_map_224 one in so many is compared
IMAGES = 200  # half of each set


@dataclass(frozen=True)
class Case:
    """A single file, and images with the results of its kit."""

    kit: Path
    file: Path
    images: Path
    """JSON: for each image a file of raw RGB in the same folder, its height and width."""
    results: list[Result]
    least_deviation: float
    """The smaller scale of the two scores."""

    def check(self, found: list[dict[str, Any]]) -> None:
        """Outputs of another runtime, by name, are those of the kit: within 1e-5, of 1 or of a larger value.

        A score is the larger of both parts, divided by their deviations: so is what it may differ by.
        """
        scale = 1 / self.least_deviation
        assert len(found) == len(self.results) == IMAGES
        for each, result in zip(found, self.results, strict=True):
            grid_map = result.grid_map
            assert grid_map is not None
            at_frame = grid_map.at_frame(height=224, width=224).ravel()[::EVERY]
            assert each["score"] == pytest.approx([result.score], abs=1e-5 * scale)
            assert each["image_score"] == pytest.approx([result.image_score], abs=1e-6)
            assert each["patch_score"] == pytest.approx([result.patch_score], abs=1e-5)
            assert np.ravel(each["anomaly_map"]) == pytest.approx(grid_map.grid.ravel(), abs=1e-5)
            assert np.ravel(each["anomaly_map_224"]) == pytest.approx(at_frame, abs=1e-5)
            assert ("normal", "warn", "reject")[int(each["verdict"][0])] == result.verdict
            assert each["p_value"] == pytest.approx([result.p_value], abs=1e-9)


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Frozen edge-small on a few normal images of both sets, and 100 others of each, normal and not."""
    folder, data = tmp_path_factory.mktemp("single"), SHARED / "data"
    if not data.is_dir():
        pytest.skip("needs ../shared/data")
    good, defect = (sorted((data / "paper" / "PA_BRG01_RL" / kind).iterdir()) for kind in ("good", "defect"))
    tiles = sorted((data / "magnetic_tile" / "train" / "good").iterdir())
    normal = [*good[:16], *tiles[:: len(tiles) // 24]]
    of_tiles = find_images([data / "magnetic_tile" / "test"]).paths
    papers = [*good[16:], *defect]
    mirrored = papers[: IMAGES // 2 - len(papers)]  # there are too few
    (folder / "normal").mkdir()
    for path in normal:
        (folder / "normal" / path.name).symlink_to(path)
    train(folder / "normal", folder / "run", TrainingOptions(steps=0, patch_rows=1000, accelerator="cpu"))
    export(folder / "run", folder / "kit", precision="fp32", warn_rate=0.2, reject_rate=0.1)
    fuse_kit(folder / "kit", folder / "kit.onnx")
    detector = Detector.load(folder / "kit", threads=1)
    listed, results = [], []
    tested = [*of_tiles[:: len(of_tiles) // (IMAGES // 2)][: IMAGES // 2], *papers, *mirrored]
    for number, path in enumerate(tested):
        image = read_image(path)
        image = image[:, ::-1] if number >= len(tested) - len(mirrored) else image
        (folder / f"{number}.raw").write_bytes(np.ascontiguousarray(image).tobytes())
        listed.append({"file": f"{number}.raw", "height": image.shape[0], "width": image.shape[1]})
        results.append(detector.score(np.ascontiguousarray(image)))
    (folder / "images.json").write_text(json.dumps(listed))
    assert len({result.verdict for result in results}) > 1
    scales = detector.scoring.image, detector.scoring.patch
    deviation = min(scale.deviation for scale in scales if scale)
    return Case(folder / "kit", folder / "kit.onnx", folder / "images.json", results, deviation)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    if not (NODE_MODULES / "onnxruntime-node").is_dir():
        pytest.skip("needs npm install --prefix tests/examples --no-package-lock --ignore-scripts")
    return NODE_MODULES


@pytest.fixture(scope="session")
def ort_headers() -> Path:
    """The folder of onnxruntime_cxx_api.h, as Debian's package libonnxruntime-dev has it."""
    folder = Path(os.environ.get("ONNXRUNTIME_HEADERS", "/usr/include/onnxruntime"))
    if not (folder / "onnxruntime_cxx_api.h").is_file():
        pytest.skip("needs the C++ headers of onnxruntime; ONNXRUNTIME_HEADERS names their folder")
    return folder


@pytest.fixture(scope="session")
def lines_of() -> Callable[[str, list[Path]], dict[str, tuple[str, float]]]:
    """From the lines that an example prints: verdict and score of each image."""

    def parse(printed: str, images: list[Path]) -> dict[str, tuple[str, float]]:
        rows = [line.split("\t") for line in printed.splitlines()]
        assert [row[0] for row in rows] == [str(path) for path in images]
        return {Path(row[0]).stem: (row[1], float(row[2].removeprefix("score "))) for row in rows}

    return parse
