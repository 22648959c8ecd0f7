"""Images whose truth is known: good, or a kind of defect."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from msc_edge.errors import SourceError, UsageError
from msc_edge.files import kind_of
from msc_edge.images import IMAGE_SUFFIXES, find_images
from msc_edge.text import valid_text

GOOD = "good"
# Folders beside the kinds that hold the truth about an image, and no images of parts; compared in lower case.
_NO_KINDS = frozenset({"ground_truth", "groundtruth", "gt", "mask", "masks", "__macosx"})


@dataclass(frozen=True)
class Labelled:
    """One image file and what it shows."""

    path: Path
    label: str
    """`good`, or the name of a kind of defect."""
    name: str
    """What a report calls it: its path within the data set, with `/`, as valid text."""

    @property
    def is_defect(self) -> bool:
        """Whether a perfect kit would reject it."""
        return self.label != GOOD


@dataclass(frozen=True)
class DataSet:
    """Labelled images, each real file once; good and defective ones are there."""

    images: tuple[Labelled, ...]
    folders: tuple[Path, ...]
    """Where they come from: nothing may be written there."""
    other_files: int
    """Files that are no images by their suffix, and images that lie beside the folders of kinds."""
    ignored_folders: tuple[str, ...] = ()
    """Folders beside the kinds that are none by their name: masks, and what a system leaves."""


def labelled_dataset(dataset: Path) -> DataSet:
    """The test part of a data set in the MVTec-AD layout: `test/good`, and `test/<kind of defect>` for each kind.

    `dataset` is the data set, or its folder `test`. Masks are passed over. Raises SourceError when it is something
    else, or when good or defective images are missing.
    """
    _check_folder(dataset)
    test = dataset / "test" if kind_of(dataset / "test" / GOOD)[0] == "folder" else dataset
    try:
        entries = sorted(path for path in test.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{test}: cannot be listed: {error.strerror}; check the permissions") from error
    folders = [path for path in entries if kind_of(path)[0] == "folder"]
    ignored_folders = [path for path in folders if path.name.lower() in _NO_KINDS]
    kinds = [path for path in folders if path not in ignored_folders]
    defects = [path for path in kinds if path.name != GOOD]
    if len(defects) == len(kinds) or not defects:
        raise SourceError(
            f"{dataset}: expected test/good beside test/<kind of defect>, as MVTec-AD has it; "
            "or name the folders yourself: --normal DIR --abnormal DIR"
        )
    beside = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in entries if path not in folders)
    found = _labelled([test / GOOD], defects, root=dataset, folders=(dataset,), beside=beside)
    return replace(found, ignored_folders=tuple(valid_text(path.name) for path in ignored_folders))


def labelled_folders(normal: Sequence[Path], abnormal: Sequence[Path]) -> DataSet:
    """Images of folders that are named; each folder of defects is a kind, by its own name.

    Raises UsageError when a name stands for two kinds or an image would have two labels, SourceError when a folder
    is none or holds no image.
    """
    if not normal or not abnormal:
        raise UsageError("an evaluation needs good and defective images: give both --normal DIR and --abnormal DIR")
    folders = (*normal, *abnormal)
    for folder in folders:
        _check_folder(folder)
    names = [_label(folder) for folder in abnormal]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--abnormal: two folders are named {twice[0]}, and the name is the kind; rename one")
    if GOOD in names:
        raise UsageError(f"--abnormal: a folder is named {GOOD}, which stands for good parts; rename it")
    return _labelled(normal, abnormal, root=_root_of(folders), folders=folders)


def _check_folder(folder: Path) -> None:
    kind, reason = kind_of(folder)
    if kind != "folder":
        raise SourceError(f"{folder}: {reason or 'is a file, where a folder is expected'}; check the path")


def _root_of(folders: Sequence[Path]) -> Path | None:
    """The folder that all of these lie in; None where that is no more than the disk itself."""
    try:
        root = Path(os.path.commonpath([_plain(folder).parent for folder in folders]))
    except ValueError:  # two drives of Windows
        return None
    return None if root == Path(root.anchor) else root


def _label(folder: Path) -> str:
    return valid_text(_plain(folder).name)


def _plain(folder: Path) -> Path:
    """The whole path without `..`, but not Path.resolve: a link to a folder keeps the name that was given."""
    return Path(os.path.abspath(folder))  # noqa: PTH100


def _labelled(
    normal: Sequence[Path], abnormal: Sequence[Path], *, root: Path | None, folders: tuple[Path, ...], beside: int = 0
) -> DataSet:
    found: dict[str, Labelled] = {}
    other_files = beside
    for folder, label in (*((each, GOOD) for each in normal), *((each, _label(each)) for each in abnormal)):
        images = find_images([folder])
        other_files += images.other_files
        for path in images.paths:
            real = os.path.realpath(path)  # not Path.resolve: before Python 3.13 it fails on links in a loop
            known = found.setdefault(real, Labelled(path, label, _name(path, root)))
            if known.label != label:
                raise UsageError(
                    f"{path}: is the same file as {known.path}, and cannot be both {known.label} and {label}; "
                    "remove one, or name each folder once"
                )
    return DataSet(tuple(found.values()), folders, other_files)


def _name(path: Path, root: Path | None) -> str:
    return valid_text(PurePath(os.path.relpath(path, root) if root else path).as_posix())
