"""The images that a run was trained on: where they are now, and a check that they are unchanged."""

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
    """`count` items, evenly spaced and in order; all items if there are no more than `count`."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def groups_of_held_out(images: Sequence[NormalImage]) -> tuple[int, ...] | None:
    """The groups of the held-out images of a run, in their order; None: a run of an older msc-edge."""
    groups = [image.group for image in images if image.role == "calibration"]
    return None if None in groups else tuple(group for group in groups if group is not None)


@dataclass(frozen=True)
class RunImages:
    """The normal images of a run, by role. Names are relative to `folder`, with forward slashes."""

    folder: Path
    in_bank: tuple[str, ...]
    """Images of the memory bank, in the order of its rows."""
    held_out: tuple[str, ...]
    """Held-out normal images, which calibrate the kit."""
    held_out_groups: tuple[int, ...] | None
    """The group of each of them; None: a run of an older msc-edge."""
    policy: DecodePolicy
    report: Report = silent

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
                raise SourceError(f"{path}: this training image is missing; pass --normal DIR if the images were moved")
            if sha256_of(path) != image.sha256:
                raise SourceError(f"{path}: changed since the training; restore the file, or train again")
            report("checking the images", done, len(used))
        in_bank, held_out = (
            tuple(image.path for image in used if image.role == role) for role in ("bank", "calibration")
        )
        return cls(folder, in_bank, held_out, groups_of_held_out(images), record.decode, report)

    def decoded(self, names: Sequence[str], task: str) -> Iterator[tuple[str, np.ndarray]]:
        """Decode the images `names`: (name, uint8 (height, width, 3)) in order. `task` labels the progress bar."""
        return decoded(self.folder, names, self.policy, task=task, report=self.report)
