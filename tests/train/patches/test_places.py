import numpy as np
import pytest
import torch
from torch import Tensor

from msc_edge.ignore_mask import IgnoreMask
from msc_edge.preprocessing import Preprocessing, preset
from msc_edge.train.patches import places as module
from msc_edge.train.patches.grid import PatchGrid
from msc_edge.train.patches.places import PlaceScale, places

SIDE, DIM = 8, 16
SPEC = preset("whole-frame", image_size=16 * SIDE, margin=8)


def noise(spread: Tensor, *, images: int = 40) -> Tensor:
    """Patch embeddings, (images, SIDE, SIDE, DIM): Gaussian, with the standard deviation `spread` of each patch."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, SIDE, SIDE, DIM, generator=generator) * spread[..., None]


def scale_of(embedded: Tensor, *, spec: Preprocessing = SPEC, batch: int = 7) -> Tensor:
    collected = PlaceScale(PatchGrid(spec, stride=16), rows=500)
    for part in embedded.split(batch):
        collected.add(part)
    return collected.fit()


def test_places_are_corners_borders_and_the_inside() -> None:
    assert places(4, 3).tolist() == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [6, 7, 8]]
    assert places(1, 1).tolist() == [[0]]
    assert places(2, 2).tolist() == [[0, 2], [6, 8]]


def test_a_border_that_varies_more_is_scaled_down() -> None:
    spread = torch.ones(SIDE, SIDE)
    spread[:, -1] = 3.0
    scale = scale_of(noise(spread))
    assert scale.shape == (SIDE, SIDE)
    assert 0.3 < float(scale[3, -1]) < 0.5
    assert scale[1:-1, 1:-1].tolist() == torch.ones(SIDE - 2, SIDE - 2).tolist()


def test_a_quiet_border_is_not_scaled_up() -> None:
    spread = torch.ones(SIDE, SIDE)
    spread[0] = 0.1
    assert scale_of(noise(spread))[0].tolist() == [1.0] * SIDE


def test_one_image_or_a_grid_without_an_inside_has_no_scale() -> None:
    assert scale_of(noise(torch.ones(SIDE, SIDE), images=1)).unique().tolist() == [1.0]
    small = preset("whole-frame", image_size=32, margin=8)
    assert scale_of(noise(torch.ones(SIDE, SIDE))[:, :2, :2], spec=small).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_equal_images_have_no_scale() -> None:
    same = noise(torch.ones(SIDE, SIDE), images=1).expand(6, -1, -1, -1)
    assert torch.isfinite(scale_of(same)).all()


def test_ignored_patches_take_no_part() -> None:
    ignored = np.zeros((16 * SIDE, 16 * SIDE), bool)
    ignored[:, -16:] = True
    spec = SPEC.model_copy(update={"ignore": IgnoreMask.of(ignored)})
    spread = torch.ones(SIDE, SIDE)
    spread[:, -1] = 30.0
    scale = scale_of(noise(spread), spec=spec)
    assert scale[:, -1].tolist() == [1.0] * SIDE
    assert float(scale[1:-1, 1:-1].min()) == 1.0


def test_memory_is_bounded_and_all_parts_of_the_images_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATCHES", 10 * SIDE * SIDE)
    spread = torch.ones(SIDE, SIDE)
    spread[-1] = 3.0
    embedded = noise(spread, images=200)
    collected = PlaceScale(PatchGrid(SPEC, stride=16), rows=500)
    for part in embedded.split(8):
        collected.add(part)
        assert len(collected._images) <= 10
    kept = [int((embedded == image).flatten(1).all(dim=1).nonzero()) for image in collected._images]
    assert kept == list(range(0, 200, kept[1]))
    assert float(collected.fit()[-1, 3]) < 0.6
