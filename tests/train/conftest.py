"""A random backbone of a few hundred kilobytes and a folder of drawn images: training in less than a second."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from msc_edge.train.backbones import build_backbone
from msc_edge.train.training import TrainingOptions


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are rounded alike here and in child processes, and tests that run beside each other do not fight."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module, int], None]:
    """Give every tensor of a network values that a trained one could have, batch norm's statistics included."""

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
def small_weights(tmp_path_factory: pytest.TempPathFactory, randomise: Callable) -> Path:
    """A random ResNet-18 up to layer2, with statistics in its batch norm."""
    backbone = build_backbone("resnet18", stop_at="layer2")
    randomise(backbone, 0)
    path = tmp_path_factory.mktemp("weights") / "resnet18_to_layer2.safetensors"
    save_file(backbone.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def drawn_normals(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Twenty drawn images of good parts; not to be changed."""
    folder = tmp_path_factory.mktemp("line") / "good parts"
    for seed in range(20):
        save(folder / f"part_{seed:02d}.png", toy.draw(seed))
    return folder


@pytest.fixture(scope="session")
def options(small_weights: Path) -> Callable[..., TrainingOptions]:
    """Options of a run of a second, which a test may change."""

    def make(**changed) -> TrainingOptions:
        quick = {
            "backbone": "resnet18",
            "weights": small_weights,
            "stop_at": "layer2",
            "image_size": 32,
            "steps": 4,
            "batch": 4,
            "learning_rate": 1e-2,
            "accelerator": "cpu",
            "precision": "fp32",
        }
        return TrainingOptions(**{**quick, **changed})

    return make
