"""Choosing a folder of this PC, and receiving dropped images."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from starlette.requests import ClientDisconnect, Request

from msc_edge.errors import SourceError, UsageError, writing
from msc_edge.files import kind_of, sha256_of
from msc_edge.image_files import IMAGE_SUFFIXES, find_images
from msc_edge.left_over import hidden_beside
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.studio.image_folders import check_image_folder
from msc_edge.text import one_line
from msc_edge.train.dataset import normal_folder

_MOST_SHOWN = 500  # folders in a list
_LARGEST = 512 << 20  # bytes of a dropped file
_LONGEST_NAME = 200  # bytes: file systems take 255, and a file that is being written has a longer name


@dataclass(frozen=True)
class Listing:
    """A folder with what is in it."""

    path: Path
    parent: Path | None
    folders: tuple[str, ...]
    images: int
    """Image files directly in it."""
    more: int
    """Folders that are not in the list."""


def list_folder(path: Path) -> Listing:
    """The folders in a folder. SourceError if it cannot be listed."""
    kind, reason = kind_of(path)
    if kind != "folder":
        raise SourceError(f"{path}: {reason or 'is not a folder'}; choose another folder")
    try:
        inside = [each for each in path.iterdir() if not each.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{path}: cannot be listed: {error.strerror}; check the permissions") from error
    folders = sorted((each.name for each in inside if kind_of(each)[0] == "folder"), key=str.lower)
    images = sum(each.suffix.lower() in IMAGE_SUFFIXES for each in inside)
    parent = path.parent if path.parent != path else None
    return Listing(path, parent, tuple(folders[:_MOST_SHOWN]), images, max(0, len(folders) - _MOST_SHOWN))


def image_count(folder: Path | None) -> int:
    """How many image files are in a folder and its subfolders; 0 where it is no longer there."""
    if folder is None:
        return 0
    try:
        return len(find_images([folder]).paths)
    except SourceError:
        return 0


def chosen_normal(text: str, studio: Path) -> Path:
    """A folder of normal images whose path was typed. Errors as `chosen_folder`; and see `normal_folder`."""
    path = chosen_folder(text, studio)
    normal_folder(path)
    return path


def chosen_labelled(text: str, studio: Path) -> Path:
    """A folder of labelled images whose path was typed. Errors as `chosen_folder`; and see `labelled_dataset`."""
    path = chosen_folder(text, studio)
    labelled_dataset(path)
    return path


def chosen_folder(text: str, studio: Path) -> Path:
    """A folder of images whose path was typed. SourceError if it is none; UsageError: see `check_image_folder`."""
    typed = text.strip()
    try:
        path = Path(typed).expanduser()
    except RuntimeError:  # ~name, and there is no such user
        path = Path(typed)
    if not typed or not path.is_absolute():
        raise SourceError(f"{typed or 'the path'}: is not a whole path; begin with / or a drive")
    kind, reason = kind_of(path)
    if kind != "folder":
        raise SourceError(f"{path}: {reason or 'is not a folder'}; check the path")
    check_image_folder(path, studio)
    return path


def file_name(name: str) -> str:
    """The name of a dropped file, without folders. UsageError if it is not that of an image, or that of no file."""
    own = PureWindowsPath(PurePosixPath(name).name).name
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in own):
        raise UsageError(f"{one_line(own)}: the name has a control character, which a file cannot have; rename it")
    if not own or own.startswith(".") or Path(own).suffix.lower() not in IMAGE_SUFFIXES:
        raise UsageError(f"{own or 'the file'}: is not an image; images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    if len(own.encode()) > _LONGEST_NAME:
        raise UsageError(f"{own[:40]}...: the name has more than {_LONGEST_NAME} bytes; rename the file")
    return own


async def body_of(request: Request, *, most: int) -> bytes:
    """The body of a request, an image file. UsageError if it has more than `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise UsageError(f"the image is larger than {most >> 20} MiB; shrink it")
    return bytes(body)


async def receive_file(request: Request, folder: Path, name: str) -> Path:
    """Write the body of a request into a folder, whole or not at all.

    A file of this name with other content keeps its name, and the new one gets a number.
    """
    own = file_name(name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        partial = hidden_beside(folder / own, ".partial")
        size = 0
        try:
            with partial.open("wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > _LARGEST:
                        raise UsageError(f"{own}: is larger than {_LARGEST >> 20} MiB; choose the folder instead")
                    file.write(chunk)
            return _keep(partial, folder, own)
        except ClientDisconnect:
            raise UsageError(f"{own}: did not arrive completely; drop it again") from None
        finally:
            partial.unlink(missing_ok=True)


def _keep(partial: Path, folder: Path, own: str) -> Path:
    target, number = folder / own, 2
    while target.exists():
        if sha256_of(target) == sha256_of(partial):
            return target
        target = folder / f"{Path(own).stem} ({number}){Path(own).suffix}"
        number += 1
    partial.rename(target)
    return target
