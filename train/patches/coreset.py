"""A coreset: few patch embeddings that stand for all patches of the normal images, and the group of each.

k-center greedy (Gonzalez 1985; Sener & Savarese, arXiv 1708.00489; PatchCore, Roth et al., arXiv 2106.08265, section
3.2): each new centre is the patch that is farthest from the centres so far. The radius is at most twice the smallest
possible one. Rare patches of normal images, which cause false alarms where they are missing, are chosen first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from msc_edge.train.patches.substitutes import PatchRows

_BLOCK_ROWS = 1 << 18  # patches in memory: 268 MB of 256 float32 each, or the patches of 1337 images of 224 pixels
_CANDIDATES = 2048
_CENTRES_PER_ROW = 2  # centres that a full block leaves, for each row of the coreset


class Coreset:
    """Collects patch embeddings in bounded memory and selects a coreset.

    Up to _BLOCK_ROWS patches, the result is k-center greedy over all of them. With more, each block of that size
    leaves twice as many centres as the coreset has rows, and the coreset is selected among all of these.
    """

    def __init__(self, rows: int, *, block_rows: int = _BLOCK_ROWS) -> None:
        """`rows` of the coreset; fewer patches than that are all kept."""
        self._rows = rows
        self._block_rows = max(block_rows, 2 * _CENTRES_PER_ROW * rows)
        self._block: list[PatchRows] = []
        self._room = self._block_rows
        self._centres: list[PatchRows] = []

    def add(self, patches: PatchRows) -> None:
        """Add patches."""
        while len(patches.embeddings):
            part = PatchRows(*(each[: self._room] for each in patches))
            patches = PatchRows(*(each[self._room :] for each in patches))
            self._block.append(part)
            self._room -= len(part.embeddings)
            if self._room == 0:
                self._reduce()

    def select(self) -> PatchRows:
        """The coreset."""
        if self._centres and self._block:
            self._reduce()
        return _chosen(self._centres or self._block, self._rows)

    def _reduce(self) -> None:
        self._centres.append(_chosen(self._block, _CENTRES_PER_ROW * self._rows))
        self._block.clear()
        self._room = self._block_rows


def _chosen(parts: Sequence[PatchRows], count: int) -> PatchRows:
    embeddings = torch.cat([part.embeddings for part in parts])
    rows = k_center(embeddings, count)
    return PatchRows(embeddings[rows], torch.cat([part.groups for part in parts])[rows])


@torch.no_grad()
def k_center(points: Tensor, count: int, *, candidates: int = _CANDIDATES) -> Tensor:
    """The numbers of `count` rows of `points`, float32 (n, dim), by k-center greedy; int64 (count,), in that order.

    The first centre is the point with the greatest norm. The result is that of the plain algorithm, which compares all
    points with one centre at a time and is limited by memory bandwidth. Here the centres are chosen among the
    `candidates` points that are farthest from the centres so far, as long as one of them is farther than any other
    point can be; then all points are compared with all the new centres in one matrix product.
    """
    count = min(count, len(points))
    squares = points.square().sum(dim=1)
    nearest = torch.full_like(squares, torch.inf)  # squared distance to the nearest centre
    chosen = [int(squares.argmax())]
    fresh = chosen
    while len(chosen) < count:
        for part in torch.arange(len(points), device=points.device).split(1 << 15):  # bounds the memory of the product
            product = points[part] @ points[fresh].T
            distances = (squares[fresh] - 2 * product).amin(dim=1) + squares[part]
            nearest[part] = torch.minimum(nearest[part], distances)
        nearest[chosen] = -1.0
        distance, place = nearest.topk(min(candidates, len(points)))
        bound = float(distance[-1]) if len(place) < len(points) else -1.0  # no other point is farther
        among = points[place]
        between = squares[place, None] + squares[place] - 2 * (among @ among.T)
        fresh = []
        while len(chosen) + len(fresh) < count:
            best = int(distance.argmax())
            if fresh and float(distance[best]) < bound:
                break
            fresh.append(int(place[best]))
            distance = torch.minimum(distance, between[best])
            distance[best] = -1.0
        chosen += fresh
    return torch.tensor(chosen[:count], device=points.device)
