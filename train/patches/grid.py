"""The grid of patches of an image: stitched from its tiles, without the patches that are ignored."""

import torch
from torch import Tensor, nn

from msc_edge.preprocessing import Preprocessing


class PatchGrid(nn.Module):
    """What belongs to a patch, on the grids of tiles or whole images -> on one grid for each image."""

    kept: Tensor | None

    def __init__(self, spec: Preprocessing, *, stride: int) -> None:
        """`stride`: pixels between two patches. The margin of `spec` must be half of it."""
        super().__init__()
        assert 2 * spec.margin == stride, f"a margin of {spec.margin} pixels, and patches {stride} pixels apart"
        self._tiles, self._side, self._stride = spec.tiles, spec.image_size, stride
        kept = spec.kept_patches(stride)
        self.register_buffer("kept", None if kept is None else torch.from_numpy(kept), persistent=False)

    @property
    def tiles(self) -> int:
        """Tiles of an image, 0 without."""
        return self._tiles.count if self._tiles else 0

    def stitched(self, grids: Tensor) -> Tensor:
        """Grids of tiles, (B * tiles, r, c, ...), as grids of the canvas, (B, rows, columns, ...).

        In the middle of an overlap one tile ends and the next begins. Without tiles the grids are returned as they are.
        """
        if self._tiles is None:
            return grids
        cut = self._tiles.overlap // (2 * self._stride)
        rows, columns = self._tiles.rows, self._tiles.columns
        of_tiles = grids.unflatten(0, (-1, rows, columns))
        lines = [
            torch.cat([_inner(of_tiles[:, row, column], 2, cut, column, columns) for column in range(columns)], dim=2)
            for row in range(rows)
        ]
        return torch.cat([_inner(line, 1, cut, row, rows) for row, line in enumerate(lines)], dim=1)

    def patches(self, grids: Tensor) -> Tensor:
        """The patches that are not ignored, of grids (B * tiles, r, c, dim): (n, dim)."""
        stitched = self.stitched(grids)
        return stitched.flatten(0, 2) if self.kept is None else stitched[:, self.kept].flatten(0, 1)

    def masked(self, distances: Tensor) -> Tensor:
        """Distances (B, rows, columns), 0 where a patch is ignored."""
        return distances if self.kept is None else distances * self.kept.to(distances.dtype)


def _inner(grid: Tensor, dim: int, cut: int, number: int, count: int) -> Tensor:
    """A grid without the half overlaps that its neighbours provide."""
    first = cut if number > 0 else 0
    last = grid.shape[dim] - (cut if number < count - 1 else 0)
    return grid.narrow(dim, first, last - first)
