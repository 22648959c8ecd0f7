"""Checkpoint selection without defective images: held-out normal images against synthetic anomalies made from them.

A few normal images are held out of training. At regular steps the current network scores them and synthetic anomalies
made from them (see `synthetic`), with the score that the kit will use. The frozen backbone is the first candidate. A
later checkpoint becomes the best one only if its AUROC is higher by more than the standard error of the difference,
so fine-tuning that does not help is undone. Test labels are never used.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from torch import Tensor, nn

from msc_edge.anomaly_map import patch_score
from msc_edge.bank import Bank
from msc_edge.errors import UsageError
from msc_edge.progress import Report, silent
from msc_edge.scoring import ScoreKind, Scoring, Standard, calibration_scores
from msc_edge.synthetic import KINDS, AnomalyKind
from msc_edge.train.dataset import held_out_blocks
from msc_edge.train.harmless import changed_copies
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import MAP_SETTINGS, fit_patch_head, outputs
from msc_edge.train.seeds import numpy_generator_of

MIN_IMAGES = 40  # four of them are held out; with fewer, both the AUROC and its standard error are noise
_HELD_OUT_SHARE = 0.1
_MAX_HELD_OUT = 64
_MAX_IN_BANK = 256  # enough to compare two networks; the kit's memory bank holds all normal images
_PATCH_ROWS = 1000  # of the patch bank of a candidate: likewise
_ANOMALIES_PER_IMAGE: dict[AnomalyKind, int] = {"drawn": 4, "pasted": 2, "shuffled": 2}


@dataclass(frozen=True)
class Evaluation:
    """How well one network separates n held-out normal images from the synthetic anomalies made from them."""

    step: int
    wins: dict[AnomalyKind, np.ndarray]
    """For each kind float64 (n, n): the share of the anomalies made from image i that score above normal image j."""

    def auroc(self, kind: AnomalyKind) -> float:
        """AUROC of one kind, in [0, 1]: the mean over all pairs (Hanley & McNeil 1982)."""
        return float(self.wins[kind].mean())

    @property
    def mean_wins(self) -> np.ndarray:
        """Mean of `wins` over the kinds, float64 (n, n). Its mean is the mean of the AUROCs."""
        return np.mean(list(self.wins.values()), axis=0)


class Candidate(BaseModel):
    """The evaluation of one checkpoint, and whether it became the best one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: NonNegativeInt
    drawn: float
    pasted: float
    shuffled: float
    auroc: float
    """Mean of the AUROCs of the three kinds."""
    error: float
    """Standard error of the difference from the best checkpoint so far, see `standard_error`."""
    selected: bool
    """Whether it became the best checkpoint."""


class CheckpointEvaluator:
    """Evaluates checkpoints, each time on the same images and the same synthetic anomalies."""

    def __init__(
        self,
        network: EmbeddingNetwork,
        held_out: Sequence[Tensor],
        others: Sequence[Tensor],
        *,
        seed: int,
        scores: ScoreKind = "image",
    ) -> None:
        """Make the synthetic anomalies.

        `held_out`, `others`: uint8 (3, h, w) training copies of normal images. The network may train on `others`.
        `scores`: what a score is made of. With patches, each checkpoint gets a patch bank of its own.
        """
        # A training copy contains only the region of interest, and is too small for tiles.
        spec = network.preprocess.spec.model_copy(update={"region": None, "tiles": None, "ignore": None})
        self._network = EmbeddingNetwork(network.backbone, spec).to(network.preprocess.mean.device)
        self._scores: ScoreKind = scores
        rng = numpy_generator_of(seed, 2, 0)
        self._normal = [_channels_last(copy) for copy in held_out]
        named = (("", image) for image in self._normal)
        self._changed = [image for _, image in changed_copies(named, may_move=True)] if scores == "both" else []
        self._anomalies: dict[AnomalyKind, list[np.ndarray]] = {
            kind: [make_anomaly(image, rng) for image in self._normal for _ in range(_ANOMALIES_PER_IMAGE[kind])]
            for kind, make_anomaly in KINDS.items()
        }
        places = np.linspace(0, len(others) - 1, min(len(others), _MAX_IN_BANK)).round().astype(int)
        self._bank = [_channels_last(others[i]) for i in places]

    def evaluate(self, step: int, *, report: Report = silent) -> Evaluation:
        """Score all images with the current weights of the network."""
        parts = [self._normal, self._changed, *self._anomalies.values()]
        normal, _, *anomalies = self._scored(parts, f"after step {step}", report)
        return Evaluation(
            step,
            {
                kind: _wins(scores.reshape(len(normal), -1), normal)
                for kind, scores in zip(KINDS, anomalies, strict=True)
            },
        )

    def _scored(self, parts: Sequence[Sequence[np.ndarray]], note: str, report: Report) -> list[np.ndarray]:
        """The scores of each part, float64 (n,): of normal images, of the copies that standardise them, and others."""
        ends = np.cumsum([len(part) for part in parts])[:-1]
        if self._scores == "image":
            embeddings = self._network.embed_all(_reported([self._bank, *parts], note, report))
            bank, embeddings = Bank(embeddings[: len(self._bank)]), embeddings[len(self._bank) :]
            return np.split(np.array([bank.score(each) for each in embeddings]), ends)
        head = fit_patch_head(self._network, lambda: _reported([self._bank], note, report), rows=_PATCH_ROWS)
        bank = Bank(self._network.embed_all(_reported([self._bank], note, report)))
        found = [
            (bank.score(embedding), patch_score(distances, smoothing=MAP_SETTINGS.smoothing))
            for embedding, distances in outputs(self._network, head, _reported(parts, note, report))
        ]
        (images, patches), changed, *others = (part.T for part in np.split(np.array(found), ends))
        standard = Standard.of_images(*changed).from_zero(images, patches) if self._scores == "both" else None
        scoring = Scoring.fitted(self._scores, standard, MAP_SETTINGS)
        return [
            calibration_scores(self._scores, images, patches, standard, MAP_SETTINGS),
            *(np.array([scoring.score(*each) for each in part.T]) for part in (changed, *others)),
        ]


def _wins(anomalies: np.ndarray, normal: np.ndarray) -> np.ndarray:
    above = anomalies[:, :, None] - normal
    return ((above > 0) + 0.5 * (above == 0)).mean(axis=1)


def standard_error(difference: np.ndarray) -> float:
    """Standard error of the mean of a matrix (n, n), n >= 2, whose rows and columns belong to the same n images.

    To first order, as for the difference of two AUROCs of the same images (DeLong et al. 1988). Here an image and its
    synthetic anomalies are one sample: image i contributes row i and column i.
    """
    parts = difference.mean(axis=0) + difference.mean(axis=1)
    return float(parts.std(ddof=1) / np.sqrt(len(parts)))


class BestCheckpoint:
    """The candidates so far, and the weights of the best one."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._weights: dict[str, Tensor] = {}
        self._wins = torch.empty(0)
        self.candidates: list[Candidate] = []

    @property
    def step(self) -> int:
        """The step of the best checkpoint."""
        return max(candidate.step for candidate in self.candidates if candidate.selected)

    def consider(self, evaluation: Evaluation) -> None:
        """Add the current weights as a candidate. The first candidate is the best one until a better one follows."""
        wins = evaluation.mean_wins
        gain = wins - self._wins.numpy() if self.candidates else wins
        error = standard_error(gain)
        selected = not self.candidates or float(gain.mean()) > error
        if selected:
            self._wins = torch.from_numpy(wins)
            self._weights = {key: value.detach().cpu().clone() for key, value in self._backbone.state_dict().items()}
        aurocs = {kind: evaluation.auroc(kind) for kind in KINDS}
        self.candidates.append(
            Candidate(step=evaluation.step, **aurocs, auroc=float(wins.mean()), error=error, selected=selected)  # pyright: ignore[reportArgumentType]
        )

    def restore(self) -> None:
        """Load the weights of the best checkpoint into the backbone."""
        self._backbone.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """The state, for the checkpoint file of a run."""
        candidates = [candidate.model_dump() for candidate in self.candidates]
        return {"weights": self._weights, "wins": self._wins, "candidates": candidates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._weights, self._wins = state["weights"], state["wins"]
        self.candidates = [Candidate(**candidate) for candidate in state["candidates"]]


def held_out_for_selection(images: int) -> set[int]:
    """Which of `images` normal images, in the order of their files, are held out of training.

    A tenth, at most 64, in blocks. The limits do not depend on them, and the kit's memory bank contains them. Raises
    UsageError for fewer than 40 images.
    """
    if images < MIN_IMAGES:
        raise UsageError(
            f"--select synthetic: {images} images are too few for checkpoint selection, at least {MIN_IMAGES} are "
            "needed; add images, or pass --select last"
        )
    return held_out_blocks(images, min(_MAX_HELD_OUT, round(_HELD_OUT_SHARE * images)))


def _reported(parts: Sequence[Sequence[np.ndarray]], note: str, report: Report) -> Iterator[tuple[str, np.ndarray]]:
    total = sum(map(len, parts))
    for done, image in enumerate(itertools.chain(*parts), start=1):
        yield "", image
        report("evaluating the checkpoint", done, total, note)


def _channels_last(copy: Tensor) -> np.ndarray:
    return np.ascontiguousarray(copy.permute(1, 2, 0).numpy())
