from collections.abc import Callable

import numpy as np
import pytest
import torch

from msc_edge.errors import SourceError
from msc_edge.preprocessing import Region, preset
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.network import EmbeddingNetwork


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def network(randomise: Callable) -> EmbeddingNetwork:
    backbone = build_backbone("resnet18", stop_at="layer1")
    randomise(backbone, 0)
    return EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)).eval()


@torch.no_grad()
def test_embeddings_are_features_of_unit_length(network: EmbeddingNetwork) -> None:
    image = torch.from_numpy(noise(0, 50, 70))[None]
    embedding, features = network(image), network.backbone(network.preprocess(image))
    assert embedding.shape == (1, 64)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))
    torch.testing.assert_close(embedding * features.norm(), features)


def test_images_of_any_sizes_embedded_together_equal_each_image_alone(network: EmbeddingNetwork) -> None:
    images = [(f"{i}.png", noise(i, 20 + 7 * i, 90 - 3 * i)) for i in range(19)]  # more than one batch
    together = network.embed_all(images)
    assert together.shape == (19, 64)
    assert together.dtype == np.float32
    with torch.no_grad():
        apart = np.concatenate([network(torch.from_numpy(image)[None]) for _, image in images])
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_no_images_give_no_embeddings(network: EmbeddingNetwork) -> None:
    assert len(network.embed_all([])) == 0


def test_embedding_does_not_change_the_network(network: EmbeddingNetwork) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.embed_all([("a.png", noise(0, 40, 40))])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_state_dict_contains_only_the_backbone(network: EmbeddingNetwork) -> None:
    assert all(key.startswith("backbone.") for key in network.state_dict())


@pytest.mark.parametrize("region", [(60, 0, 20, 20), (0, 40, 10, 20), (1000, 1000, 5, 5)])
def test_the_error_names_the_image_that_does_not_contain_the_region(region: tuple, network: EmbeddingNetwork) -> None:
    x, y, width, height = region
    spec = preset("whole-frame", image_size=32, region=Region(x=x, y=y, width=width, height=height))
    with_region = EmbeddingNetwork(network.backbone, spec)
    with pytest.raises(SourceError, match=rf"part 7\.png: is 70x50 pixels, and --roi {x},{y},{width},{height}"):
        with_region.embed_all([("part 7.png", noise(0, 50, 70))])
    large_enough = noise(0, y + height, x + width)
    assert with_region.embed_all([("fits.png", large_enough)]).shape == (1, 64)
