"""A small random backbone, drawn images, and runs that several tests share."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.options import TrainingOptions
from msc_edge.train.run_folder import CURVES, METRICS, VIEWS
from msc_edge.train.run_record import BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, RunRecord
from msc_edge.train.training import train

RESULTS = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, METRICS, CURVES, VIEWS)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread: rounding is the same as in child processes, and parallel test processes do not compete for cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module, int], None]:
    """Set every tensor of a network to plausible trained values, including the statistics of batch norm."""

    def change(network: nn.Module, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif name.endswith("running_mean") or (name.endswith("bias") and value.dim() == 1):
                value.normal_(0, 0.1, generator=generator)
            elif value.dim() == 1 and value.is_floating_point():
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)

    return change


@pytest.fixture(scope="session")
def structure() -> Callable[..., Backbone]:
    """Build a backbone whose values are undefined, for tests of names and shapes only."""

    def build(name: str, stop_at: str | None = None) -> Backbone:
        # ResNets have many weights, which take long to initialise. On the meta device they have none.
        with torch.device("meta" if name.startswith(("res", "wide")) else "cpu"):
            return build_backbone(name, stop_at=stop_at)

    return build


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory, randomise: Callable) -> Path:
    """Random weights of a MobileNetV2 of a tenth of the width, up to features.3."""
    backbone = build_backbone("mobilenet_v2_x0.1", stop_at="features.3")
    randomise(backbone, 0)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_to_3.safetensors"
    save_file(backbone.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def normal_images(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """A folder of 20 drawn normal images; read-only."""
    folder = tmp_path_factory.mktemp("line") / "good parts"
    for seed in range(20):
        save(folder / f"part_{seed:02d}.png", toy.draw(seed))
    return folder


@pytest.fixture(scope="session")
def options(small_weights: Path) -> Callable[..., TrainingOptions]:
    """Options of a run that takes a fraction of a second; a test can change them."""

    def make(**changed) -> TrainingOptions:
        quick = {
            "backbone": "mobilenet_v2_x0.1",
            "weights": small_weights,
            "stop_at": "features.3",
            "image_size": 32,
            "scores": "image",
            "steps": 4,
            "batch": 4,
            "learning_rate": 1e-2,
            "accelerator": "cpu",
            "dtype": "fp32",
        }
        return TrainingOptions(**{**quick, **changed})

    return make


@pytest.fixture(scope="session")
def trained() -> Callable[..., RunRecord]:
    """Train, and return the record of the run."""

    def run(normal: Path, out: Path, options: TrainingOptions, **more) -> RunRecord:
        record = train(normal, out, options, **more)
        assert record is not None
        return record

    return run


@pytest.fixture(scope="session")
def contents() -> Callable[..., dict[str, str]]:
    """The SHA-256 of files of a run: of all that it learned and drew, or of those named."""

    def read(run: Path, names: tuple[str, ...] = RESULTS) -> dict[str, str]:
        return {name: sha256((run / name).read_bytes()).hexdigest() for name in names}

    return read


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, normal_images: Path, options: Callable) -> Path:
    """A finished run of `normal_images` with `options()`; read-only."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(normal_images, out, options())
    return out


@pytest.fixture(scope="session")
def frozen_run(tmp_path_factory: pytest.TempPathFactory, normal_images: Path, options: Callable) -> Path:
    """A finished run of `normal_images` without training steps; read-only."""
    out = tmp_path_factory.mktemp("frozen") / "run"
    train(normal_images, out, options(steps=0))
    return out
