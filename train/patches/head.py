"""The patch head: feature maps -> distance of each patch to its nearest row of the patch bank.

A patch is one position of the finest tap. Its embedding is made of every tap there: 3x3 mean (PatchCore, Roth et al.,
arXiv 2106.08265, section 3.1), unit length, and whitening. What differs from PatchCore: unit length for each tap,
whitening instead of adaptive pooling to a fixed number of channels, and the whitening is applied to each tap *before*
the coarser ones are enlarged. That gives the same result, because both are linear, for a third of the time.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.train.patches.taps import Tap
from msc_edge.train.patches.whitening import Whitening

_TINY = 1e-12  # a map may be all zero at a position


class PatchHead(nn.Module):
    """Maps of the taps, (B, C, h, w) each, finest first -> patch distances, (B, rows, columns), in standard deviations.

    `bias`, `bank` and one matrix per tap are buffers, so that they are part of the state dict.
    """

    bias: Tensor
    bank: Tensor

    def __init__(self, taps: Sequence[Tap], *, dim: int, rows: int) -> None:
        """An empty head with a bank of `rows` patches; fill it with a state dict, or see `fit.fit_patch_head`."""
        super().__init__()
        self.taps = tuple(taps)
        for number, tap in enumerate(taps):
            self.register_buffer(f"matrix{number}", torch.zeros(dim, tap.channels))
        self.register_buffer("bias", torch.zeros(dim))
        self.register_buffer("bank", torch.zeros(rows, dim))

    @classmethod
    def of(cls, taps: Sequence[Tap], whitening: Whitening, bank: Tensor) -> "PatchHead":
        """The head of a fitted whitening and patch bank."""
        head = cls(taps, dim=len(whitening.bias), rows=len(bank))
        parts = whitening.matrix.split([tap.channels for tap in taps], dim=1)
        state = {f"matrix{number}": part for number, part in enumerate(parts)}
        head.load_state_dict(state | {"bias": whitening.bias, "bank": bank})
        return head.to(bank.device).eval()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute patch distances: Euclidean, to the nearest row of the bank."""
        batch, rows, columns, dim = (embedded := self.embed(maps)).shape
        patches = embedded.reshape(-1, dim)
        squares = self.bank.square().sum(dim=1)
        # |z - m|^2 = |z|^2 + |m|^2 - 2 z.m, as one matrix product.
        nearest = torch.addmm(squares, patches, -2 * self.bank.T).amin(dim=1)
        distances = (nearest + patches.square().sum(dim=1)).clamp_min(0).sqrt()
        return distances.reshape(batch, rows, columns)

    def embed(self, maps: Sequence[Tensor]) -> Tensor:
        """Whitened patch embeddings, (B, rows, columns, dim)."""
        total = self.bias
        for number, feature_map in enumerate(maps):
            projected = pooled(feature_map) @ getattr(self, f"matrix{number}").T
            total = total + enlarged(projected, self.taps[number].stride // self.taps[0].stride, maps[0].shape[2:])
        return total


def pooled(feature_map: Tensor) -> Tensor:
    """3x3 means of a feature map (B, C, h, w), each of unit length over the channels: (B, h, w, C)."""
    means = F.avg_pool2d(feature_map, 3, stride=1, padding=1, count_include_pad=False)
    means = means.permute(0, 2, 3, 1)
    return means / means.square().sum(dim=3, keepdim=True).sqrt().clamp_min(_TINY)


def enlarged(grid: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """A grid (B, h, w, dim) enlarged by a power of two, bilinearly, and cut to `size`: (B, rows, columns, dim).

    Position i of a map at stride 16 is at position 2 i of a map at stride 8: both are centred on the same pixel,
    because the network's convolutions are padded alike on all sides. The positions between are means.
    """
    while factor > 1:
        grid = _doubled(_doubled(grid, 1), 2)
        factor //= 2
    return grid[:, : size[0], : size[1]]


def _doubled(grid: Tensor, axis: int) -> Tensor:
    places = torch.arange(2 * grid.shape[axis], device=grid.device)
    before, after = places // 2, ((places + 1) // 2).clamp_max(grid.shape[axis] - 1)
    return (grid.index_select(axis, before) + grid.index_select(axis, after)) / 2


def stacked(maps: Sequence[Tensor], taps: Sequence[Tap]) -> Tensor:
    """The patches before whitening, (n, channels): all taps at every position of the finest one."""
    grids = [pooled(each) for each in maps]
    size = grids[0].shape[1:3]
    parts = [enlarged(grid, tap.stride // taps[0].stride, size) for grid, tap in zip(grids, taps, strict=True)]
    return torch.cat(parts, dim=3).flatten(0, 2)
