"""Choosing when to stop, without one bad part: held-out normals against spoiled copies of them.

A few images of the normal set are kept out of training. From time to time the network of that moment is asked to
tell them from copies that were spoiled on purpose (`synthetic`), by the score that the kit will use. The frozen
backbone is asked first, and a later network takes its place only when it does better by more than the error of the
comparison: fine-tuning that does no good is undone. Test labels play no part.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from torch import Tensor, nn

from msc_edge.bank import Bank
from msc_edge.errors import UsageError
from msc_edge.progress import Report, silent
from msc_edge.train.dataset import blocks_held_out
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.seeds import numpy_generator_of
from msc_edge.train.synthetic import KINDS, Kind

FEWEST = 40  # normals, four of them held out: with fewer an answer is noise, and so is its error
_SHARE_HELD_OUT = 0.1
_MOST_HELD_OUT = 64
_MOST_IN_BANK = 256  # enough to rank two networks by; the kit's bank has all
_COPIES: dict[Kind, int] = {"drawn": 4, "pasted": 2, "jumbled": 2}  # of each held-out image


@dataclass(frozen=True)
class Evaluation:
    """How one network tells n held-out images from their spoiled copies."""

    step: int
    wins: dict[Kind, np.ndarray]
    """Of each kind float64 (n, n): the share of the copies of image i that score above the good image j."""

    def auroc(self, kind: Kind) -> float:
        """Of one kind, in [0, 1]: the mean over all pairs (Hanley & McNeil 1982)."""
        return float(self.wins[kind].mean())

    @property
    def mean_wins(self) -> np.ndarray:
        """Float64 (n, n), over the kinds; its mean is the mean of their AUROCs."""
        return np.mean(list(self.wins.values()), axis=0)


class Candidate(BaseModel):
    """What was asked after a step, and what came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: NonNegativeInt
    drawn: float
    pasted: float
    jumbled: float
    auroc: float
    """Mean of the AUROCs of the three kinds."""
    error: float
    """Standard error of the difference from the one that was kept until then, see `standard_error`."""
    kept: bool
    """Whether it took the place of the one before."""


class Selection:
    """The question that each candidate is asked: the same images, spoiled in the same way, every time."""

    def __init__(
        self, network: EmbeddingNetwork, held_out: Sequence[Tensor], others: Sequence[Tensor], *, seed: int
    ) -> None:
        """`held_out` and `others`: uint8 (3, h, w) training copies of normals; `others` may be trained on."""
        # A training copy is what the region of interest had in it.
        spec = network.preprocess.spec.model_copy(update={"region": None})
        self._network = EmbeddingNetwork(network.backbone, spec).to(network.preprocess.mean.device)
        rng = numpy_generator_of(seed, 2, 0)
        self._good = [_channels_last(copy) for copy in held_out]
        self._spoiled: dict[Kind, list[np.ndarray]] = {
            kind: [spoil(image, rng) for image in self._good for _ in range(_COPIES[kind])]
            for kind, spoil in KINDS.items()
        }
        spread = np.linspace(0, len(others) - 1, min(len(others), _MOST_IN_BANK)).round().astype(int)
        self._bank = [_channels_last(others[i]) for i in spread]

    def evaluate(self, step: int, *, report: Report = silent) -> Evaluation:
        """Let the network of this moment score all images."""
        parts = [self._bank, self._good, *self._spoiled.values()]
        embeddings = self._network.embed_all(_told(parts, f"after step {step}", report))
        in_bank, *rest = np.split(embeddings, np.cumsum([len(part) for part in parts])[:-1])
        bank = Bank(in_bank)
        good, *spoiled = (np.array([bank.score(embedding) for embedding in part]) for part in rest)
        return Evaluation(
            step,
            {kind: _wins(scores.reshape(len(good), -1), good) for kind, scores in zip(KINDS, spoiled, strict=True)},
        )


def _wins(spoiled: np.ndarray, good: np.ndarray) -> np.ndarray:
    above = spoiled[:, :, None] - good
    return ((above > 0) + 0.5 * (above == 0)).mean(axis=1)


def standard_error(difference: np.ndarray) -> float:
    """Standard error of the mean of a matrix (n, n), n >= 2, whose rows and columns stand for the same n images.

    To first order, as for the difference of two AUROCs of the same images (DeLong et al. 1988), but here an image
    and its spoiled copies are drawn together: image i has its part in row i and in column i.
    """
    parts = difference.mean(axis=0) + difference.mean(axis=1)
    return float(parts.std(ddof=1) / np.sqrt(len(parts)))


class BestCheckpoint:
    """The candidates so far, and the weights of the one that is kept."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._weights: dict[str, Tensor] = {}
        self._wins = torch.empty(0)
        self.candidates: list[Candidate] = []

    @property
    def step(self) -> int:
        """The step whose weights are kept."""
        return max(candidate.step for candidate in self.candidates if candidate.kept)

    def consider(self, answer: Evaluation) -> None:
        """Take the backbone of this moment as a candidate; the first one is kept until a better one comes."""
        wins = answer.mean_wins
        better = wins - self._wins.numpy() if self.candidates else wins
        error = standard_error(better)
        kept = not self.candidates or float(better.mean()) > error
        if kept:
            self._wins = torch.from_numpy(wins)
            self._weights = {key: value.detach().cpu().clone() for key, value in self._backbone.state_dict().items()}
        aurocs = {kind: answer.auroc(kind) for kind in KINDS}
        self.candidates.append(
            Candidate(step=answer.step, **aurocs, auroc=float(wins.mean()), error=error, kept=kept)  # pyright: ignore[reportArgumentType]
        )

    def restore(self) -> None:
        """Give the backbone the weights that are kept."""
        self._backbone.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        candidates = [candidate.model_dump() for candidate in self.candidates]
        return {"weights": self._weights, "wins": self._wins, "candidates": candidates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._weights, self._wins = state["weights"], state["wins"]
        self.candidates = [Candidate(**candidate) for candidate in state["candidates"]]


def held_out_for_selection(images: int) -> set[int]:
    """Which of so many normals, in the order of their files, are kept out of training: a tenth, at most 64, in blocks.

    No limit depends on them, and the kit's bank has them. Raises UsageError with fewer than 20 images.
    """
    if images < FEWEST:
        raise UsageError(
            f"--select synthetic: {images} images are too few to choose a step by, at least {FEWEST} are needed; "
            "add images, or pass --select last"
        )
    return blocks_held_out(images, min(_MOST_HELD_OUT, round(_SHARE_HELD_OUT * images)))


def _told(parts: Sequence[Sequence[np.ndarray]], note: str, report: Report) -> Iterator[tuple[str, np.ndarray]]:
    total = sum(map(len, parts))
    for done, image in enumerate(itertools.chain(*parts), start=1):
        yield "", image
        report("good or spoiled?", done, total, note)


def _channels_last(copy: Tensor) -> np.ndarray:
    return np.ascontiguousarray(copy.permute(1, 2, 0).numpy())
