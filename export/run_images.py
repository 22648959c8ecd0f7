"""The images that a run was trained on, found again and proven to be the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many of the items, evenly spread over their order; all of them where there are no more."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


@dataclass(frozen=True)
class RunImages:
    """Where the images of a run lie now, and the part that each has."""

    folder: Path
    in_bank: tuple[str, ...]
    """Names within the folder, in the order of the bank's rows."""
    held_out: tuple[str, ...]
    policy: DecodePolicy
    report: Report = silent

    @classmethod
    def found(cls, record: RunRecord, images: Sequence[NormalImage], moved: Path | None, report: Report) -> Self:
        """Check that every one is there, with the bytes that were trained on; SourceError names the first that is not.

        `moved` is where they lie now, if they have moved.
        """
        folder = normal_folder(moved) if moved else Path(record.folder)
        used = [image for image in images if image.role in ("bank", "calibration")]
        for done, image in enumerate(used, start=1):
            path = folder / image.path
            if not path.is_file():
                raise SourceError(
                    f"{path}: the run was trained with it, and it is not there; pass --normal DIR if it moved"
                )
            if sha256_of(path) != image.sha256:
                raise SourceError(f"{path}: has changed since the training; put the old file back, or train again")
            report("checking the images", done, len(used))
        in_bank, held_out = (
            tuple(image.path for image in used if image.role == role) for role in ("bank", "calibration")
        )
        return cls(folder, in_bank, held_out, record.decode, report)

    def decoded(self, names: Sequence[str], task: str) -> Iterator[tuple[str, np.ndarray]]:
        """(name, image) of some of them, uint8 (height, width, 3), in order; `task` is what the progress says."""
        return decoded(self.folder, names, self.policy, task=task, report=self.report)
