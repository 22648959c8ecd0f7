from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from msc_edge.ignore_mask import IgnoreMask
from msc_edge.preprocessing import Tiles, preset
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.patches.grid import PatchGrid
from msc_edge.train.patches.taps import TappedBackbone, find_taps

STRIDE, MARGIN = 16, 8
SHAPES = [(1, 2), (2, 1), (2, 3), (1, 8)]


def cut(canvas: Tensor, tiles: Tiles, side: int, stride: int) -> Tensor:
    """The tiles of grids or images of the canvas, (B, rows, columns) -> (B * tiles, r, c)."""
    size, corners = side // stride, [(top // stride, left // stride) for top, left in tiles.corners(side)]
    parts = [canvas[:, top : top + size, left : left + size] for top, left in corners]
    return torch.stack(parts, dim=1).flatten(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [96, 224, 256])
def test_the_grids_of_tiles_become_the_grid_of_the_canvas(shape: tuple[int, int], side: int) -> None:
    tiles = Tiles.parse(f"{shape[0]}x{shape[1]}", image_size=side)
    spec = preset("whole-frame", image_size=side, tiles=tiles, margin=MARGIN)
    rows, columns = (length // STRIDE for length in spec.canvas)
    canvas = torch.arange(2 * rows * columns, dtype=torch.float32).reshape(2, rows, columns)
    grid = PatchGrid(spec, stride=STRIDE)
    assert torch.equal(grid.stitched(cut(canvas, tiles, side, STRIDE)), canvas)
    embeddings = canvas[..., None] + torch.arange(3)
    of_tiles = torch.stack([cut(each, tiles, side, STRIDE) for each in embeddings.unbind(dim=3)], dim=3)
    assert torch.equal(grid.patches(of_tiles), embeddings.flatten(0, 2))


def test_the_middle_of_an_overlap_is_where_one_tile_ends() -> None:
    tiles = Tiles.parse("1x2", image_size=224)
    assert tiles.overlap == 64
    grid = PatchGrid(preset("whole-frame", image_size=224, tiles=tiles, margin=MARGIN), stride=STRIDE)
    of_tiles = torch.stack([torch.zeros(14, 14), torch.ones(14, 14)])
    expected = torch.cat([torch.zeros(14, 12), torch.ones(14, 12)], dim=1)
    assert torch.equal(grid.stitched(of_tiles), expected[None])


def test_tiles_and_the_whole_image_pass_the_backbone_as_if_alone(randomise: Callable) -> None:
    backbone = build_backbone("mobilenet_v2_x0.1")
    randomise(backbone, 0)
    taps = find_taps(backbone)
    images = torch.randn(2 * 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))  # two images, three tiles each
    with torch.no_grad():
        features, maps = TappedBackbone(backbone, taps, tiles=3)(images)
        expected, all_maps = TappedBackbone(backbone, taps)(images)
    torch.testing.assert_close(features, expected[[0, 4]])
    for found, every in zip(maps, all_maps, strict=True):
        torch.testing.assert_close(found, every[[1, 2, 3, 5, 6, 7]])


def test_ignored_patches_are_left_out_and_have_no_distance() -> None:
    ignored = np.zeros((64, 64), bool)
    ignored[:, 30:] = True  # the patches of columns 2 and 3 lie on pixels 40 and 56
    spec = preset("whole-frame", image_size=64, margin=MARGIN).model_copy(update={"ignore": IgnoreMask.of(ignored)})
    grid = PatchGrid(spec, stride=STRIDE)
    distances = torch.arange(1.0, 17).reshape(1, 4, 4)
    assert grid.masked(distances).tolist() == [[[1, 2, 0, 0], [5, 6, 0, 0], [9, 10, 0, 0], [13, 14, 0, 0]]]
    assert grid.patches(distances[..., None]).flatten().tolist() == [1, 2, 5, 6, 9, 10, 13, 14]
