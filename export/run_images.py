"""The images that a run was trained on: where they are now, and a check that they are unchanged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from msc_edge.errors import SourceError
from msc_edge.files import sha256_of
from msc_edge.images import DecodePolicy
from msc_edge.progress import Report, silent
from msc_edge.train.dataset import NormalImage, normal_folder
from msc_edge.train.loading import decoded
from msc_edge.train.run_record import RunRecord
from msc_edge.train.split import Split

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` items, evenly spaced and in order; all items if there are no more than `count`."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


@dataclass(frozen=True)
class RunImages:
    """The normal images of a run. Names are relative to `folder`, with forward slashes."""

    folder: Path
    split: Split
    policy: DecodePolicy
    report: Report = silent

    @property
    def in_bank(self) -> tuple[str, ...]:
        """Images of the memory bank, in the order of its rows."""
        return tuple(image.path for image in self.split.bank)

    @property
    def calibration(self) -> tuple[str, ...]:
        """Images that calibrate the kit, held out once or in turn."""
        return tuple(image.path for image in self.split.calibration)

    @property
    def held_out(self) -> tuple[str, ...]:
        """Images that training held out once. Held out in turn, they are in the memory bank all the same."""
        return tuple(image.path for image in self.split.held_out_once().calibration)

    def held_out_once(self) -> Self:
        """The same images with a part of them held out once."""
        return replace(self, split=self.split.held_out_once())

    @classmethod
    def find(
        cls, record: RunRecord, images: Sequence[NormalImage], *, moved: Path | None = None, report: Report = silent
    ) -> Self:
        """Find the images of a run and check that each has the same bytes as in training.

        `images`: the run's image table. `moved`: the folder of the images, if it is not the one in `record`.
        SourceError names the first image that is missing or changed.
        """
        folder = normal_folder(moved) if moved else Path(record.folder)
        used = [image for image in images if image.role in ("bank", "calibration")]
        for done, image in enumerate(used, start=1):
            path = folder / image.path
            if not path.is_file():
                remedy = (
                    "name the folder that the images were moved to" if moved else "pass --normal DIR if they were moved"
                )
                raise SourceError(f"{path}: this training image is missing; {remedy}")
            if sha256_of(path) != image.sha256:
                raise SourceError(f"{path}: changed since the training; restore the file, or train again")
            report("checking the images", done, len(used))
        return cls(folder, Split.of(used, in_turn=record.in_turn, trained=record.trained), record.decode, report)

    def decoded(self, names: Sequence[str], task: str) -> Iterator[tuple[str, np.ndarray]]:
        """Decode the images `names`: (name, uint8 (height, width, 3)) in order. `task` labels the progress bar."""
        return decoded(self.folder, names, self.policy, task=task, report=self.report)
