"""Substitutes: the rows that a patch bank would have if one group of images were not there.

Without a group, the bank lacks the rows that are patches of it. Where those were, k-center greedy would have chosen
patches of other groups, and has not, because a row was near them. Calibration images held out in turn would find an
emptier bank than new images do, and their scores would be too high. Therefore each patch of another group that is left
without a row within the separation of the bank (the distance at which k-center greedy stopped) gets one again, by the
same algorithm. Scores of the calibration stay a little too high, because the other rows keep their places: evidence in
docs/decisions.md.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 4096  # patches whose distances to all rows are in memory: 66 MB for 4000 rows


NO_GROUP = -1
"""Of a patch whose group does not matter: no image is held out in turn."""


class PatchRows(NamedTuple):
    """Rows of a patch bank."""

    embeddings: Tensor
    """float32 (rows, dim)."""
    groups: Tensor
    """The group of the image that each is a patch of, int64 (rows,)."""


class Substitutes(NamedTuple):
    """Patches that replace the rows of one group each, while it is left out."""

    embeddings: Tensor
    """float32 (n, dim)."""
    groups: Tensor
    """The group of the image that each is a patch of, int64 (n,)."""
    replaced: Tensor
    """The group whose rows each replaces, int64 (n,)."""

    @classmethod
    def none_of(cls, rows: PatchRows) -> "Substitutes":
        """No substitutes."""
        return cls(rows.embeddings[:0], rows.groups[:0], rows.groups[:0])


class SubstituteSearch:
    """Finds the substitutes of a patch bank among all patches, which are kept only if they are chosen."""

    def __init__(self, rows: PatchRows) -> None:
        """`rows`: a coreset by k-center greedy. Memory holds the distances of a block of patches to all of them."""
        self._rows, self._separation = rows, separation_of(rows.embeddings)
        self._found: dict[int, list[PatchRows]] = {}

    def add(self, patches: PatchRows) -> None:
        """Look among these patches."""
        for embeddings, groups in zip(patches.embeddings.split(_BLOCK), patches.groups.split(_BLOCK), strict=True):
            distances = torch.cdist(embeddings, self._rows.embeddings)
            covered_by = self._rows.groups[distances.argmin(dim=1)]
            others = distances.masked_fill_(covered_by[:, None] == self._rows.groups, torch.inf).amin(dim=1)
            # Without the only row nothing is near any patch, though the separation of one row is infinite.
            alone = ((others > self._separation) | others.isinf()) & (covered_by != groups)
            for replaced in covered_by[alone].unique().tolist():
                places = torch.nonzero(alone & (covered_by == replaced))[:, 0]
                self._choose(replaced, PatchRows(embeddings[places], groups[places]))

    def _choose(self, replaced: int, patches: PatchRows) -> None:
        """k-center greedy among patches that are left without a row, until each has one again."""
        chosen = self._found.setdefault(replaced, [])
        nearest = torch.full((len(patches.embeddings),), torch.inf, device=patches.embeddings.device)
        fresh = torch.cat([each.embeddings for each in chosen]) if chosen else patches.embeddings[:1]
        if not chosen:
            chosen.append(PatchRows(fresh, patches.groups[:1]))
        while True:
            nearest = torch.minimum(nearest, torch.cdist(patches.embeddings, fresh).amin(dim=1))
            farthest = int(nearest.argmax())
            if float(nearest[farthest]) <= self._separation:
                return
            fresh = patches.embeddings[farthest, None]
            chosen.append(PatchRows(fresh, patches.groups[farthest, None]))

    def found(self) -> Substitutes:
        """All substitutes, those of one group after those of another."""
        none = Substitutes.none_of(self._rows)
        parts = [(each, replaced) for replaced, chosen in sorted(self._found.items()) for each in chosen]
        return Substitutes(
            torch.cat([none.embeddings, *(each.embeddings for each, _ in parts)]),
            torch.cat([none.groups, *(each.groups for each, _ in parts)]),
            torch.cat([none.replaced, *(torch.full_like(each.groups, replaced) for each, replaced in parts)]),
        )


def separation_of(rows: Tensor) -> float:
    """The least distance between two of the rows, float32 (rows, dim); infinity if there is only one."""
    least = torch.inf
    for first, part in enumerate(rows.split(_BLOCK)):
        distances = torch.cdist(part, rows)
        distances[torch.arange(len(part)), first * _BLOCK + torch.arange(len(part))] = torch.inf
        least = min(least, float(distances.min()))
    return least
