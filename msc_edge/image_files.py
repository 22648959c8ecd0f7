"""Find image files in folders, glob patterns and single files."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import SourceError
from msc_edge.files import kind_of

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class FoundImages:
    """The result of `find_images`."""

    paths: tuple[Path, ...]
    """The image files in the order of the arguments, sorted within each argument, each file once."""
    other_files: int
    """How many files were skipped because their suffix is not that of an image."""


def find_images(arguments: Iterable[str | Path]) -> FoundImages:
    """Find image files in folders (any nesting), glob patterns and single files.

    Folders are searched for files with the suffix of an image. Links are followed; each folder is entered once, even if
    links form a loop. Hidden files and folders are skipped unless an argument names them. A part of a pattern that
    exists under that exact name, brackets included, matches only itself. A single file is accepted with any suffix. A
    nested folder that cannot be listed is returned in place of its images, so that reading it gives the reason. Raises
    SourceError when an argument matches nothing, and when all arguments together contain no image.
    """
    found: dict[Path, None] = {}  # an ordered set
    others = 0
    named = [str(argument) for argument in arguments]
    for argument in named:
        if not argument:
            raise SourceError(
                "an empty path was given, perhaps from a variable that is not set; name a folder or a file"
            )
        unlisted: list[Path] = []
        kind, reason = kind_of(argument)
        if kind == "file":
            found[Path(argument)] = None
            continue
        if kind == "folder":
            files = _walk(Path(argument), unlisted)
        elif glob.has_magic(argument):
            files = sorted(_matches(Path(), Path(argument).parts, unlisted))
            reason = "no file matches this pattern"
        else:
            files = []
        if not files and kind is None:
            raise SourceError(f"{argument}: {reason}; check the path")
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        others += len(files) - len(images)
        found |= dict.fromkeys(sorted(images + unlisted))
    if not found:
        raise SourceError(
            f"{', '.join(named) or 'the list of paths'}: no images found "
            f"({others} other files); looked for {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return FoundImages(tuple(found), others)


def _matches(folder: Path, parts: tuple[str, ...], unlisted: list[Path]) -> set[Path]:
    """Files below a folder that match the parts of a pattern; `**` is any depth of folders.

    Avoid glob.glob(recursive=True): two links to their own folder make it search 2**40 paths.
    """
    if not parts:
        return set() if kind_of(folder)[0] == "folder" else {folder}
    first, rest = parts[0], parts[1:]
    if first == "**":
        if kind_of(folder)[0] != "folder":
            return set()
        if not rest:
            return set(_walk(folder, unlisted))
        return {match for inside, _ in _folders(folder, unlisted) for match in _matches(inside, rest, unlisted)}
    if os.path.lexists(folder / first):
        return _matches(folder / first, rest, unlisted)
    names = glob.glob(first, root_dir=folder)  # noqa: PTH207  (Path.glob would match hidden names)
    return {match for name in names for match in _matches(folder / name, rest, unlisted)}


def _walk(folder: Path, unlisted: list[Path]) -> list[Path]:
    """All files below a folder, sorted by path."""
    return sorted(file for _, files in _folders(folder, unlisted) for file in files)


def _folders(top: Path, unlisted: list[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder from `top` down with its files, without hidden ones; each folder once.

    Nested folders that cannot be listed are appended to `unlisted`.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [top]  # avoid os.walk: before Python 3.12 it fails on a thousand nested folders
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            # Windows gives inode 0 on some file systems; there the resolved path identifies the folder.
            identity = (status.st_dev, status.st_ino or hash(folder.resolve()))
            if identity in entered:
                continue
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
            folders = {Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)}
        except OSError as error:
            if folder == top:
                raise SourceError(f"{folder}: cannot be listed: {error.strerror}; check the permissions") from error
            unlisted.append(folder)
            continue
        folders |= {Path(entry) for entry in entries if entry.is_symlink() and kind_of(entry.path)[0] == "folder"}
        entered.add(identity)
        yield folder, [path for path in map(Path, entries) if path not in folders]
        waiting += sorted(folders, reverse=True)
