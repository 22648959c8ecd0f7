"""Which images of a run are in the memory bank, and which ones set the limits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from msc_edge.bank import Bank, K
from msc_edge.calibration import REJECT_RATE, images_needed
from msc_edge.held_out import can_be_held_out_in_turn, image_scores_in_turn
from msc_edge.scoring import ScoreKind
from msc_edge.train.dataset import NormalImage


@dataclass(frozen=True)
class Split:
    """Which images of a run are in the memory bank, and which ones set the limits."""

    bank: tuple[NormalImage, ...]
    calibration: tuple[NormalImage, ...]
    """The network was not trained on them."""
    in_turn: bool
    """Held out in turn: the calibration images are in the bank, too, and each is scored without its own group. See
    `msc_edge.held_out`."""

    @classmethod
    def of(cls, images: Sequence[NormalImage], *, in_turn: bool, trained: bool = True) -> Self:
        """The split of the images that are used, in their order.

        `trained`: the network was trained on those with the role `bank`. Otherwise, in turn, all images set the limits.
        """
        used = tuple(image for image in images if image.role in ("bank", "calibration"))
        bank, held_out = (tuple(image for image in used if image.role == role) for role in ("bank", "calibration"))
        return cls(used, held_out if trained else used, in_turn) if in_turn else cls(bank, held_out, in_turn)

    @property
    def used(self) -> tuple[NormalImage, ...]:
        """All images of the split."""
        return self.bank if self.in_turn else (*self.bank, *self.calibration)

    @property
    def all_calibrate(self) -> bool:
        """Whether all images set the limits."""
        return len(self.calibration) == len(self.used)

    def held_out_once(self) -> Self:
        """The same images with a part of them held out once."""
        return self.of(self.used, in_turn=False) if self.in_turn else self

    @property
    def fewest_independent(self) -> float:
        """The fewest independent images that the calibration images count as: where the scores of a group are equal.

        n by the mean size of an image's group; as many as images, if their groups are not known.
        """
        sizes = Counter(self.groups or range(len(self.calibration))).values()
        return len(self.calibration) ** 2 / sum(size**2 for size in sizes)

    def image_scores(self, bank: Bank, embeddings: np.ndarray, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """The image score of some calibration images against the rows that they may be compared with, float64 (n,).

        `bank`: of this split. `embeddings`: float32 (n, dim). `places`: which calibration image each of them shows.
        """
        if not self.in_turn:
            return np.array([bank.score(embedding) for embedding in embeddings])
        groups, bank_groups = self.groups, self.bank_groups
        assert groups is not None
        assert bank_groups is not None
        return image_scores_in_turn(bank, bank_groups, embeddings, [groups[place] for place in places])

    @property
    def groups(self) -> tuple[int, ...] | None:
        """The group of each calibration image; None: a run of an older msc-edge."""
        return _groups(self.calibration)

    @property
    def bank_groups(self) -> tuple[int, ...] | None:
        """The group of each image of the bank; None likewise."""
        return _groups(self.bank)


def split_of(images: Sequence[NormalImage], *, trained: bool, scores: ScoreKind) -> Split:
    """Held out in turn, if `can_be_held_out_in_turn`; else once. `trained`: see `Split.of`."""
    in_turn, patches = Split.of(images, in_turn=True, trained=trained), scores != "image"
    groups = in_turn.bank_groups
    possible = groups is not None and can_be_held_out_in_turn(groups, k=K, patches=patches)
    return in_turn if possible else in_turn.held_out_once()


def fine_tuning_suits(images: Sequence[NormalImage], *, scores: ScoreKind, rate: float = REJECT_RATE) -> bool:
    """Whether a fine-tuned network could state a target false-alarm rate of `rate`, or states no larger one.

    The limits of a fine-tuned network are from the images that it was not trained on, those of a pretrained one from
    all. Whole images gain more by fine-tuning than that costs, patches do not: docs/decisions.md.
    """
    once, turn = (split_of(images, trained=trained, scores=scores) for trained in (True, False))
    return scores == "image" or not turn.all_calibrate or once.fewest_independent >= images_needed(rate)


def _groups(images: Sequence[NormalImage]) -> tuple[int, ...] | None:
    groups = [image.group for image in images]
    return None if None in groups else tuple(group for group in groups if group is not None)
