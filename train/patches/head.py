"""The patch head: feature maps -> distance of each patch to its nearest row of the patch bank.

A patch is one position of the coarsest tap. Its embedding is made of every tap there: 3x3 mean (PatchCore, Roth et al.,
arXiv 2106.08265, section 3.1), unit length, and whitening. What differs from PatchCore: the grid is that of the
coarsest tap instead of the finest, so that four times as many rows take the same time; the mean at the coarsest tap has
half of its weight at the patch itself, because nine positions there are 48 pixels of the input; unit length for each
tap; and whitening instead of adaptive pooling to a fixed number of channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.patch_rows import ROUNDING
from msc_edge.train.patches.substitutes import PatchRows, Substitutes
from msc_edge.train.patches.taps import Tap
from msc_edge.train.patches.whitening import Whitening

_TINY = 1e-12  # a map may be all zero at a position


class PatchHead(nn.Module):
    """Maps of the taps, (B, C, h, w) each, finest first -> patch distances, (B, rows, columns), in standard deviations.

    The bank with its substitutes, and one mean and one matrix per tap are buffers, so that they are part of the state
    dict.
    """

    bank: Tensor
    """float32 (rows, dim)."""
    bank_groups: Tensor
    """The group of the image that each row of the bank is a patch of, int64 (rows,)."""
    substitutes: Tensor
    """See `Substitutes`; float32 (n, dim)."""
    substitute_groups: Tensor
    substitute_replaced: Tensor

    def __init__(self, taps: Sequence[Tap], *, dim: int, rows: int, substitutes: int = 0) -> None:
        """An empty head with a bank of `rows` patches; fill it with a state dict, or see `fit.fit_patch_head`."""
        super().__init__()
        self.taps = tuple(taps)
        for number, tap in enumerate(taps):
            self.register_buffer(f"mean{number}", torch.zeros(tap.channels))
            self.register_buffer(f"matrix{number}", torch.zeros(dim, tap.channels))
        self.register_buffer("bank", torch.zeros(rows, dim))
        self.register_buffer("bank_groups", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("substitutes", torch.zeros(substitutes, dim))
        self.register_buffer("substitute_groups", torch.zeros(substitutes, dtype=torch.int64))
        self.register_buffer("substitute_replaced", torch.zeros(substitutes, dtype=torch.int64))

    @classmethod
    def of(
        cls, taps: Sequence[Tap], whitening: Whitening, bank: PatchRows, substitutes: Substitutes | None = None
    ) -> "PatchHead":
        """The head of a fitted whitening and patch bank."""
        substitutes = substitutes or Substitutes.none_of(bank)
        head = cls(taps, dim=len(whitening.matrix), rows=len(bank.groups), substitutes=len(substitutes.groups))
        channels = [tap.channels for tap in taps]
        parts = {"mean": whitening.mean.split(channels), "matrix": whitening.matrix.split(channels, dim=1)}
        state = {f"{name}{number}": part for name, split in parts.items() for number, part in enumerate(split)}
        head.load_state_dict(state | state_of_bank(bank, substitutes))
        return head.to(bank.embeddings.device).eval()

    def without(self, groups: Tensor) -> "PatchHead":
        """The head whose bank has no patches of these groups, int64 (n,), but the substitutes of their rows."""
        groups = groups.to(self.bank.device)
        kept = ~torch.isin(self.bank_groups, groups)
        added = torch.isin(self.substitute_replaced, groups) & ~torch.isin(self.substitute_groups, groups)
        bank = PatchRows(
            torch.cat([self.bank[kept], self.substitutes[added]]),
            torch.cat([self.bank_groups[kept], self.substitute_groups[added]]),
        )
        head = PatchHead(self.taps, dim=self.bank.shape[1], rows=len(bank.groups))
        head.load_state_dict(self.state_dict() | state_of_bank(bank, Substitutes.none_of(bank)))
        return head.to(self.bank.device).eval()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute patch distances: Euclidean, to the nearest row of the bank."""
        return self.distances(self.embed(maps))

    def distances(self, embedded: Tensor) -> Tensor:
        """Patch distances (B, rows, columns) of embeddings as `embed` gives them."""
        batch, rows, columns, dim = embedded.shape
        return distances_to(self.bank, embedded.reshape(-1, dim)).reshape(batch, rows, columns)

    def embed(self, maps: Sequence[Tensor]) -> Tensor:
        """Whitened patch embeddings, (B, rows, columns, dim)."""
        first, *others = (
            (grid - getattr(self, f"mean{number}")) @ getattr(self, f"matrix{number}").T
            for number, grid in enumerate(grids_of(maps, self.taps))
        )
        for other in others:
            first = first + other
        return first


def state_of_bank(bank: PatchRows, substitutes: Substitutes) -> dict[str, Tensor]:
    """The entries of a head's state dict for its bank."""
    names = ("bank", "bank_groups", "substitutes", "substitute_groups", "substitute_replaced")
    return dict(zip(names, (*bank, *substitutes), strict=True))


def distances_to(bank: Tensor, patches: Tensor) -> Tensor:
    """Euclidean distance of each patch, (n, dim), to the nearest row of the bank, (rows, dim): (n,)."""
    squares = bank.square().sum(dim=1)
    # |z - m|^2 = |z|^2 + |m|^2 - 2 z.m, as one matrix product.
    nearest = torch.addmm(squares, patches, -2 * bank.T).amin(dim=1)
    own = patches.square().sum(dim=1)
    return torch.maximum(nearest + own, ROUNDING * own).sqrt()


def grids_of(maps: Sequence[Tensor], taps: Sequence[Tap]) -> list[Tensor]:
    """The means of every map around the positions of the coarsest, each of unit length over its channels.

    Maps (B, C, h, w), finest first -> (B, rows, columns, C) each. Means of all taps are centred on the same pixels:
    with convolutions that are padded alike on all sides, position i of a map at stride 16 is position 2 i of a map at
    stride 8, and with those of TensorFlow 2 i + 1. A row and a column of the coarsest map lie in the margin and are
    left out: the first ones, or the last ones, whichever are further from the image.
    """
    coarsest = taps[-1]
    skipped = 1 if coarsest.first == 0 else 0
    rows, columns = (size - 1 for size in maps[-1].shape[2:])
    return [
        _pooled(
            each,
            step=coarsest.stride // tap.stride,
            start=(skipped * coarsest.stride + coarsest.first - tap.first) // tap.stride,
        )[:, :rows, :columns]
        for each, tap in zip(maps, taps, strict=True)
    ]


def _pooled(feature_map: Tensor, *, step: int, start: int) -> Tensor:
    """The means around the positions `start`, `start + step` and so on in both directions: (B, rows, columns, C)."""
    cut, left_out = start % step, start // step
    means = F.avg_pool2d(feature_map[:, :, cut:, cut:], 3, stride=step, padding=1, count_include_pad=False)
    if step == 1:  # the coarsest map
        means = (means + feature_map) / 2
    means = means[:, :, left_out:, left_out:].permute(0, 2, 3, 1)
    return means / means.square().sum(dim=3, keepdim=True).sqrt().clamp_min(_TINY)
