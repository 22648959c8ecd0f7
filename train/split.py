"""Which images of a run are in the memory bank, and which ones set the limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from msc_edge.bank import K
from msc_edge.held_out import can_be_held_out_in_turn
from msc_edge.scoring import ScoreKind
from msc_edge.train.dataset import NormalImage


@dataclass(frozen=True)
class Split:
    """Which images of a run are in the memory bank, and which ones set the limits."""

    bank: tuple[NormalImage, ...]
    calibration: tuple[NormalImage, ...]
    in_turn: bool
    """Held out in turn: both are all images, and each is scored without its own group. See `msc_edge.held_out`."""

    @classmethod
    def of(cls, images: Sequence[NormalImage], *, in_turn: bool) -> Self:
        """The split of the images that are used, in their order."""
        used = tuple(image for image in images if image.role in ("bank", "calibration"))
        bank, calibration = (tuple(image for image in used if image.role == role) for role in ("bank", "calibration"))
        return cls(used, used, in_turn) if in_turn else cls(bank, calibration, in_turn)

    def held_out_once(self) -> Self:
        """The same images with a part of them held out once."""
        return self.of(self.bank, in_turn=False) if self.in_turn else self

    @property
    def groups(self) -> tuple[int, ...] | None:
        """The group of each calibration image; None: a run of an older msc-edge."""
        groups = [image.group for image in self.calibration]
        return None if None in groups else tuple(group for group in groups if group is not None)


def split_of(images: Sequence[NormalImage], *, trained: bool, scores: ScoreKind) -> Split:
    """Held out in turn, if the network was not trained on the images, and if `can_be_held_out_in_turn`."""
    in_turn, patches = Split.of(images, in_turn=True), scores != "image"
    possible = in_turn.groups is not None and can_be_held_out_in_turn(in_turn.groups, k=K, patches=patches)
    return in_turn if possible and not trained else in_turn.held_out_once()
