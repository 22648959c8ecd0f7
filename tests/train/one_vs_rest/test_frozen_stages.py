from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from msc_edge.errors import UsageError
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import preset
from msc_edge.progress import silent
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.loading import decoded
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.one_vs_rest.frozen_stages import FrozenStages

NAMES = [f"{number}.png" for number in range(11)]


@pytest.fixture
def below(tmp_path: Path, save: Callable) -> Path:
    random = np.random.default_rng(0)
    for name in NAMES:
        save(tmp_path / "images" / name, random.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    return tmp_path / "images"


@pytest.fixture
def network(randomise: Callable) -> EmbeddingNetwork:
    backbone = build_backbone("resnet18", stop_at="layer3")
    randomise(backbone, 0)
    return EmbeddingNetwork(backbone, preset("whole-frame", image_size=64)).eval()


@pytest.mark.parametrize("last", ["layer2", "layer2.0", None])
def test_embeddings_are_those_of_the_whole_network_whatever_trains_behind(
    below: Path, network: EmbeddingNetwork, last: str | None, tmp_path: Path
) -> None:
    stages = FrozenStages(network, last, below, NAMES, tmp_path / "maps")
    for number in range(2):
        expected = network.embed_all(decoded(below, NAMES, DecodePolicy(), task=""))
        found = stages.embed(title="", report=silent)
        assert np.abs(found - expected).max() < (2e-3 if last else 1e-6) * np.abs(expected).max()
        assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()
        with torch.no_grad():
            network.backbone.get_submodule("layer3.1.conv2").weight *= -1 - number  # pyright: ignore[reportOperatorIssue]
    assert len(list((tmp_path / "maps").glob("*"))) == (1 if last else 0)


def test_files_are_of_their_images_and_stage(below: Path, network: EmbeddingNetwork, tmp_path: Path) -> None:
    for last, names in (("layer2", NAMES), ("layer1", NAMES), ("layer2", NAMES[:5])):
        assert len(FrozenStages(network, last, below, names, tmp_path).embed(title="", report=silent)) == len(names)
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_values_that_float16_does_not_hold_are_refused(below: Path, network: EmbeddingNetwork, tmp_path: Path) -> None:
    with torch.no_grad():
        network.backbone.get_submodule("bn1").weight *= 1e7  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(UsageError, match="pass --freeze-to none"):
        FrozenStages(network, "layer1", below, NAMES, tmp_path).embed(title="red", report=silent)
    assert not list(tmp_path.glob("*.npy"))


@pytest.mark.parametrize("last", ["layer2", None])
def test_first_embeddings_are_computed_once_for_all_methods(
    below: Path, network: EmbeddingNetwork, last: str | None, tmp_path: Path
) -> None:
    first = FrozenStages(network, last, below, NAMES, tmp_path / "maps")
    expected = first.embed_initial(title="", report=silent)
    assert np.array_equal(expected, first.embed(title="", report=silent))
    with torch.no_grad():  # as training does
        network.backbone.get_submodule("layer3.1.conv2").weight *= -1  # pyright: ignore[reportOperatorIssue]
    for method in (first, FrozenStages(network, last, below, NAMES, tmp_path / "maps")):
        assert np.array_equal(method.embed_initial(title="", report=silent), expected)
        assert not np.allclose(method.embed(title="", report=silent), expected, atol=1e-3)
