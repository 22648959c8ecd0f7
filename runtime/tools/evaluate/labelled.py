"""Labelled images: normal, or of a defect type."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from msc_edge.errors import SourceError, UsageError
from msc_edge.files import kind_of
from msc_edge.image_files import IMAGE_SUFFIXES, find_images
from msc_edge.text import valid_text

GOOD = "good"
# Folders beside the defect types that hold masks, not images of parts; compared in lower case.
_IGNORED = frozenset({"ground_truth", "groundtruth", "gt", "mask", "masks", "__macosx"})


@dataclass(frozen=True)
class LabelledImage:
    """One image file and its label."""

    path: Path
    label: str
    """`good` for a normal image, else the defect type."""
    name: str
    """Its path within the data set, with `/`, as valid text: the name in reports."""

    @property
    def is_anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.label != GOOD


@dataclass(frozen=True)
class LabelledDataset:
    """Labelled images, each file once; it has normal and anomalous ones."""

    images: tuple[LabelledImage, ...]
    folders: tuple[Path, ...]
    """Folders of the images: nothing may be written there."""
    other_files: int
    """Files that are not images, by their suffix, and images beside the folders of the defect types."""
    ignored_folders: tuple[str, ...] = ()
    """Folders beside the defect types that hold no images of parts, by their names, such as masks."""


def labelled_dataset(dataset: Path) -> LabelledDataset:
    """The test part of a data set in the MVTec-AD layout: `test/good` and `test/<defect type>`.

    `dataset` is the data set, or its folder `test`. Masks are ignored. Raises SourceError for another layout, and where
    normal or anomalous images are missing.
    """
    _check_folder(dataset)
    test = dataset / "test" if kind_of(dataset / "test" / GOOD)[0] == "folder" else dataset
    try:
        entries = sorted(path for path in test.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{test}: cannot be listed: {error.strerror}; check the permissions") from error
    folders = [path for path in entries if kind_of(path)[0] == "folder"]
    ignored = [path for path in folders if path.name.lower() in _IGNORED]
    labelled = [path for path in folders if path not in ignored]
    defect_types = [path for path in labelled if path.name != GOOD]
    if len(defect_types) == len(labelled) or not defect_types:
        raise SourceError(
            f"{dataset}: expected test/good and test/<defect type>, the layout of MVTec-AD; "
            "or name the folders: --normal DIR --abnormal DIR"
        )
    beside = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in entries if path not in folders)
    found = _labelled([test / GOOD], defect_types, root=dataset, folders=(dataset,), beside=beside)
    return replace(found, ignored_folders=tuple(valid_text(path.name) for path in ignored))


def labelled_folders(normal: Sequence[Path], abnormal: Sequence[Path]) -> LabelledDataset:
    """The images of named folders; the name of each folder of anomalous images is its defect type.

    Raises UsageError when two folders have one name or an image gets two labels, SourceError when a folder is missing
    or holds no image.
    """
    if not normal or not abnormal:
        raise UsageError("an evaluation needs normal and anomalous images: pass both --normal DIR and --abnormal DIR")
    folders = (*normal, *abnormal)
    for folder in folders:
        _check_folder(folder)
    names = [_label(folder) for folder in abnormal]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--abnormal: two folders are named {twice[0]}, and the name is the defect type; rename one")
    if GOOD in names:
        raise UsageError(f"--abnormal: a folder is named {GOOD}, the label of normal images; rename it")
    return _labelled(normal, abnormal, root=_root_of(folders), folders=folders)


def _check_folder(folder: Path) -> None:
    kind, reason = kind_of(folder)
    if kind != "folder":
        raise SourceError(f"{folder}: {reason or 'is a file, where a folder is expected'}; check the path")


def _root_of(folders: Sequence[Path]) -> Path | None:
    """The folder that holds all of these; None for two drives of Windows."""
    try:
        return Path(os.path.commonpath([_plain(folder).parent for folder in folders]))
    except ValueError:
        return None


def _label(folder: Path) -> str:
    return valid_text(_plain(folder).name)


def _plain(folder: Path) -> Path:
    """The absolute path without `..`. Not Path.resolve: a link to a folder keeps its name."""
    return Path(os.path.abspath(folder))  # noqa: PTH100


def _labelled(
    normal: Sequence[Path], abnormal: Sequence[Path], *, root: Path | None, folders: tuple[Path, ...], beside: int = 0
) -> LabelledDataset:
    found: dict[str, LabelledImage] = {}
    other_files = beside
    for folder, label in (*((each, GOOD) for each in normal), *((each, _label(each)) for each in abnormal)):
        images = find_images([folder])
        other_files += images.other_files
        for path in images.paths:
            real = os.path.realpath(path)  # not Path.resolve: before Python 3.13 it fails on links in a loop
            known = found.setdefault(real, LabelledImage(path, label, _name(path, root)))
            if known.label != label:
                raise UsageError(
                    f"{path}: is the same file as {known.path} and would be both {known.label} and {label}; "
                    "remove one, or name each folder once"
                )
    return LabelledDataset(tuple(found.values()), folders, other_files)


def _name(path: Path, root: Path | None) -> str:
    return valid_text(PurePath(os.path.relpath(path, root) if root else path).as_posix())
