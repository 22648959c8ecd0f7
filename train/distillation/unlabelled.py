"""The images to distil on: unlabelled, from any number of folders and zip archives."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.errors import SourceError, UnreadableImageError
from msc_edge.files import kind_of
from msc_edge.image_files import IMAGE_SUFFIXES, find_images
from msc_edge.images import DecodePolicy, bytes_of, decode_image
from msc_edge.parallel import ordered_map
from msc_edge.progress import Report, silent

_READERS = 2
_LARGEST_MEMBER = 1 << 30  # bytes, unpacked; an archive can promise far more than it holds

_ENCRYPTED = 0x1  # of a member's flags


@dataclass(frozen=True)
class Found:
    """One image: a file, or a member of a zip archive."""

    path: Path
    member: str | None = None
    place: int = 0
    """Of the member in its archive, which may hold one name twice."""

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)


def find_unlabelled(
    sources: Sequence[str | Path], *, unopened: Callable[[str, str], None] | None = None
) -> list[Found]:
    """Find the images of all sources, in the order of the sources and sorted within each.

    `unopened` is told (name, reason) of archives that lie within folders: an archive is opened where it is named.
    Raises SourceError for one that is missing, holds no images, or is a damaged archive.
    """
    found: list[Found] = []
    for given in sources:
        source = Path(given)
        kind, _ = kind_of(source)
        if not (kind == "file" and _is_archive(source)):
            found += [Found(path) for path in find_images([given]).paths]  # an empty name would be a folder as a Path
            if unopened and kind == "folder":
                for archive in sorted(source.rglob("*.zip")):
                    unopened(str(archive), f"an archive within a folder is not opened; name it: --images {archive}")
            continue
        with _opened(source) as archive:
            members = sorted(
                (info.filename, place) for place, info in enumerate(archive.infolist()) if _is_image(info.filename)
            )
        if not members:
            raise SourceError(f"--images {source}: the archive holds no images; check the path")
        found += [Found(source, member, place) for member, place in members]
    return list(dict.fromkeys(found))


def read_unlabelled(
    found: Sequence[Found], *, report: Report = silent, unreadable: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (SHA-256 of the file, image) for each one found, in order; a second copy of a file is left out.

    `unreadable` is told (name, reason) of those that cannot be read.
    """
    policy, seen = DecodePolicy(), set()
    with ExitStack() as stack:
        archives = {one.path: stack.enter_context(_opened(one.path)) for one in found if one.member}

        def read(one: Found) -> tuple[Found, str, np.ndarray | UnreadableImageError]:
            try:
                data = _member(archives[one.path], one.place) if one.member else bytes_of(one.path)
                return one, hashlib.sha256(data.data).hexdigest(), decode_image(data, policy)
            except UnreadableImageError as error:
                return one, "", error

        for done, (one, digest, image) in enumerate(ordered_map(read, found, workers=_READERS), start=1):
            report("reading images", done, len(found))
            if isinstance(image, UnreadableImageError):
                if unreadable:
                    unreadable(str(one), str(image))
            elif digest not in seen:
                seen.add(digest)
                yield digest, image


def _is_archive(path: Path) -> bool:
    try:
        return path.suffix.lower() == ".zip" or zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a part of an archive of several
        return True


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises many kinds for a damaged or an odd archive
        raise SourceError(f"--images {path}: cannot be opened as a zip archive ({error}); copy it again") from error


def _is_image(member: str) -> bool:
    parts = [part for part in member.split("/") if part not in (".", "")] or [""]
    hidden = any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX"
    return not hidden and Path(member).suffix.lower() in IMAGE_SUFFIXES


def _member(archive: zipfile.ZipFile, place: int) -> np.ndarray:
    info = archive.infolist()[place]
    if info.file_size > _LARGEST_MEMBER:
        raise UnreadableImageError(f"it has {info.file_size >> 20} MiB unpacked, and at most 1024 are read")
    if info.flag_bits & _ENCRYPTED:
        raise UnreadableImageError("it is encrypted; unpack the archive with its password, and name the folder")
    try:
        return np.frombuffer(archive.read(info), np.uint8)
    except Exception as error:  # damaged, an unknown method; zlib, lzma and bz2 have errors of their own
        raise UnreadableImageError(f"cannot be unpacked: {error}") from error
