"""Pictures whose truth is known: good, or a kind of defect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import SourceError, UsageError
from msc_edge.files import kind_of
from msc_edge.images import find_images

GOOD = "good"


@dataclass(frozen=True)
class Labelled:
    """One picture file and what it shows: `good`, or the name of a kind of defect."""

    path: Path
    label: str

    @property
    def is_defect(self) -> bool:
        """Whether a perfect kit would reject it."""
        return self.label != GOOD


def labelled_pictures(dataset: Path) -> list[Labelled]:
    """The test part of a data set in the MVTec-AD layout: `test/good`, and `test/<kind of defect>` for each kind.

    `dataset` is the data set, or its folder `test`. Raises SourceError when it is something else, or when good or
    defective pictures are missing.
    """
    if kind_of(dataset)[0] != "folder":
        raise SourceError(f"{dataset}: no such folder; check the path")
    test = dataset / "test" if (dataset / "test").is_dir() else dataset
    kinds = sorted(path for path in test.iterdir() if path.is_dir() and not path.name.startswith("."))
    if GOOD not in {path.name for path in kinds}:
        raise SourceError(
            f"{dataset}: expected test/good beside test/<kind of defect>, as MVTec-AD has it; "
            "or name the folders yourself: --normal DIR --abnormal DIR"
        )
    defects = [path for path in kinds if path.name != GOOD]
    return _labelled([test / GOOD], defects)


def labelled_folders(normal: Sequence[Path], abnormal: Sequence[Path]) -> list[Labelled]:
    """Pictures of folders that are named; each folder of defects is a kind, by its own name."""
    names = [folder.resolve().name for folder in abnormal]
    if twice := sorted({name for name in names if names.count(name) > 1 or name == GOOD}):
        raise UsageError(f"--abnormal: the name {twice[0]} is there twice, or stands for good parts; rename the folder")
    return _labelled(normal, abnormal)


def _labelled(normal: Sequence[Path], abnormal: Sequence[Path]) -> list[Labelled]:
    found: dict[Path, Labelled] = {}
    for folders, label in ((normal, GOOD), *(([folder], folder.resolve().name) for folder in abnormal)):
        for path in find_images(folders).paths if folders else ():
            real = path.resolve()
            if real in found and found[real].label != label:
                raise UsageError(f"{path}: is counted as {found[real].label} and as {label}; name each folder once")
            found[real] = Labelled(path, label)
    pictures = list(found.values())
    for wanted, what in ((False, "good"), (True, "defective")):
        if not any(picture.is_defect == wanted for picture in pictures):
            raise SourceError(f"there are no {what} pictures: an evaluation needs good and defective ones")
    return pictures
