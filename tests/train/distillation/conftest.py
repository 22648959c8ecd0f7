"""Photos to distil on, a small teacher that distinguishes them, and a distillation that several tests share."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.distil import DISTIL_RECORD, DistilRecord, distil, work_folder
from msc_edge.train.distillation.loop import DistilMetrics
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.metrics import read_metrics
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.run_folder import METRICS


@pytest.fixture(scope="session")
def scene() -> Callable[[int], np.ndarray]:
    """Draw an image that differs from all others: patches and stripes of many colours, uint8 (48, 64, 3)."""

    def draw(seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        patches = random.uniform(0, 255, (random.integers(1, 7), random.integers(1, 7), 3)).astype(np.float32)
        image = cv2.resize(patches, (64, 48), interpolation=cv2.INTER_CUBIC)
        row, column = np.mgrid[:48, :64]
        stripes = np.sin(random.uniform(0.1, 2) * row + random.uniform(0.1, 2) * column)[..., None]
        return np.clip(image + stripes * random.uniform(-80, 80, 3), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory, save: Callable, scene: Callable) -> Path:
    """A folder of 36 scenes; read-only."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed in range(36):
        save(folder / f"{seed:02d}.png", scene(seed))
    return folder


@pytest.fixture(scope="session")
def calibrated(scenes: Path) -> Callable[[Backbone], dict[str, Tensor]]:
    """Set the batch-norm statistics of a random network to those of the scenes. Returns its state dict."""

    def change(backbone: Backbone) -> dict[str, Tensor]:
        preprocess = Preprocess(preset("whole-frame", image_size=32))
        images = torch.cat([preprocess(torch.from_numpy(read_image(path))[None]) for path in sorted(scenes.iterdir())])
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the plain mean
        with torch.no_grad():
            backbone.train()(images)
        return backbone.eval().state_dict()

    return change


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory, randomise: Callable, calibrated: Callable) -> Path:
    """A random MobileNetV2 of a tenth of the width, up to features.6."""
    backbone = build_backbone("mobilenet_v2_x0.1", stop_at="features.6")
    randomise(backbone, 0)
    path = tmp_path_factory.mktemp("teacher") / "mobilenet_v2_x0.1_to_6.safetensors"
    save_file(calibrated(backbone), path)
    return path


@pytest.fixture(scope="session")
def resnet_weights(tmp_path_factory: pytest.TempPathFactory, randomise: Callable, calibrated: Callable) -> Path:
    """A random ResNet-18 up to layer2."""
    backbone = build_backbone("resnet18", stop_at="layer2")
    randomise(backbone, 0)
    path = tmp_path_factory.mktemp("teacher") / "resnet18_to_layer2.safetensors"
    save_file(calibrated(backbone), path)
    return path


@pytest.fixture(scope="session")
def student_weights(tmp_path_factory: pytest.TempPathFactory, calibrated: Callable) -> Path:
    """A random MobileNetV2 of a tenth of the width."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone("mobilenet_v2_x0.1")
    path = tmp_path_factory.mktemp("student") / "mobilenet_v2_x0.1.safetensors"
    save_file(calibrated(backbone), path)
    return path


@pytest.fixture(scope="session")
def options(teacher_weights: Path) -> DistilOptions:
    """A cut MobileNetV2 teaches a complete one, both of a tenth of the width."""
    return DistilOptions(
        teacher_backbone="mobilenet_v2_x0.1",
        teacher_weights=teacher_weights,
        teacher_stop_at="features.6",
        student="mobilenet_v2_x0.1",
        steps=4,
        batch=8,
        image_size=32,
        accelerator="cpu",
        dtype="fp32",
        measure_every=2,
        learning_rate=0.1,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes: Path, options: DistilOptions) -> Path:
    """The student of a finished distillation with `options`; read-only."""
    out = tmp_path_factory.mktemp("finished") / "student.safetensors"
    distil([scenes], out, options)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a test writes its student."""
    return tmp_path / "student.safetensors"


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[DistilMetrics]]:
    """The metrics of the distillation of a student."""

    def read(out: Path) -> list[DistilMetrics]:
        return read_metrics(work_folder(out) / METRICS, DistilMetrics)

    return read


@pytest.fixture(scope="session")
def record_of() -> Callable[[Path], DistilRecord]:
    """The record of the distillation of a student."""

    def read(out: Path) -> DistilRecord:
        return DistilRecord.model_validate_json((work_folder(out) / DISTIL_RECORD).read_bytes())

    return read
