"""Detect a collapse of the embeddings: do they still distinguish images?

Fine-tuning on one class can collapse: all images move to one point, or to few directions, and defects move with them.
Two metrics show it. Both use embeddings that each step computes anyway.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

_WINDOW = 10  # steps; the metrics of a single batch are noisy
_SHARE = 1 / 2  # warn if less than this share of the initial spread or rank is left
_SHARE_OF_ONE_STEP = 1 / 4


def mean_pairwise_cosine(embeddings: Tensor) -> float:
    """Mean cosine between different rows of unit vectors (n, dim), n >= 2; 1 if all images are one point.

    From  |sum of rows|^2 = n + sum over pairs i != j of cos(i, j).
    """
    n = len(embeddings)
    total = embeddings.double().sum(dim=0).square().sum()
    return float((total - n) / (n * (n - 1)))


def effective_rank(embeddings: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli 2007) of centred rows (n, dim).

    The number of directions that the images spread over, in [1, min(n - 1, dim)].
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    singular = torch.linalg.svdvals(centred)
    share = singular / singular.sum().clamp_min(1e-300)
    entropy = -(share * share.clamp_min(1e-300).log()).sum()
    return float(entropy.exp())


@dataclass
class CollapseMonitor:
    """Compares the last steps with the first ones and reports a collapse once.

    Until there are enough steps for a window, each step is compared with the first.
    """

    first: list[tuple[float, float]] = field(default_factory=list)
    last: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    warned: bool = False

    def update(self, cosine: float, rank: float) -> str | None:
        """Add the metrics of one step. Returns a warning the first time that the spread or the rank has halved."""
        self.last.append((cosine, rank))
        if len(self.first) < _WINDOW:
            self.first.append((cosine, rank))
            # The metrics of the first step belong to the network before training. Comparing two single batches is
            # noisy, so the threshold is lower.
            then, now, share = self.first[0], (cosine, rank), _SHARE_OF_ONE_STEP
        else:
            then, now, share = _mean(self.first), _mean(self.last), _SHARE
        (cosine_then, rank_then), (cosine_now, rank_now) = then, now
        narrow = 1 - cosine_now < (1 - cosine_then) * share
        flat = rank_now < rank_then * share
        if self.warned or not (narrow or flat):
            return None
        self.warned = True
        return (
            "the embeddings are collapsing: mean pairwise cosine "
            f"{cosine_then:.3f} -> {cosine_now:.3f}, effective rank {rank_then:.1f} -> {rank_now:.1f}; "
            "train fewer steps or with a lower --learning-rate"
        )


def _mean(metrics: Collection[tuple[float, float]]) -> tuple[float, float]:
    cosines, ranks = zip(*metrics, strict=True)
    return sum(cosines) / len(cosines), sum(ranks) / len(ranks)
