"""The images for distillation: unlabelled, from any number of folders, image files and zip archives."""

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
# Bytes, unpacked; a small archive can unpack to any size. 89 megapixels of an uncompressed 8-bit image.
_LARGEST_MEMBER = 1 << 28
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others can need gigabytes to unpack anything

_ENCRYPTED = 0x1  # of a member's flags


@dataclass(frozen=True)
class UnlabelledImage:
    """One image: a file, or a member of a zip archive."""

    path: Path
    member: str | None = None
    place: int = 0
    """Place of the member in its archive: an archive may contain the same name twice."""

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)


def find_unlabelled(
    sources: Sequence[str | Path], *, skipped: Callable[[str, str], None] | None = None
) -> list[UnlabelledImage]:
    """Find the images of all sources, in the order of the sources and sorted within each.

    `skipped` is called with the name and the reason for archives inside folders: only an archive that is itself a
    source is opened. Raises SourceError for a source that is missing, contains no images, or is a damaged archive.
    """
    found: list[UnlabelledImage] = []
    for given in sources:
        source = Path(given)
        kind, _ = kind_of(source)
        if not (kind == "file" and _is_archive(source)):
            # `given`, not `source`: an empty string would become the current folder.
            found += [UnlabelledImage(path) for path in find_images([given]).paths]
            if skipped and kind == "folder":
                for archive in sorted(source.rglob("*.zip")):
                    skipped(
                        str(archive), f"archives inside folders are not opened; pass it as a source: --images {archive}"
                    )
            continue
        with _opened(source) as archive:
            _refuse_overlap(source, archive)
            members = sorted(
                (info.filename, place) for place, info in enumerate(archive.infolist()) if _is_image(info.filename)
            )
        if not members:
            raise SourceError(f"--images {source}: the archive contains no images; check the path")
        found += [UnlabelledImage(source, member, place) for member, place in members]
    return list(dict.fromkeys(found))


def read_unlabelled(
    found: Sequence[UnlabelledImage],
    *,
    report: Report = silent,
    unreadable: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (SHA-256 of the file, image) in order; duplicates of a file are skipped.

    `unreadable` is called with the name and the reason of images that cannot be read; they are skipped.
    """
    policy, seen = DecodePolicy(), set()
    with ExitStack() as stack:
        archives = {image.path: stack.enter_context(_opened(image.path)) for image in found if image.member}

        def read(image: UnlabelledImage) -> tuple[UnlabelledImage, str, np.ndarray | UnreadableImageError]:
            try:
                data = _member(archives[image.path], image.place) if image.member else bytes_of(image.path)
                return image, hashlib.sha256(data.data).hexdigest(), decode_image(data, policy)
            except UnreadableImageError as error:
                return image, "", error

        for done, (image, digest, pixels) in enumerate(ordered_map(read, found, workers=_READERS), start=1):
            report("reading images", done, len(found))
            if isinstance(pixels, UnreadableImageError):
                if unreadable:
                    unreadable(str(image), str(pixels))
            elif digest not in seen:
                seen.add(digest)
                yield digest, pixels


def _is_archive(path: Path) -> bool:
    try:
        return path.suffix.lower() == ".zip" or zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one part of a multi-part archive
        return True


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises many types for a damaged or unusual archive
        raise SourceError(f"--images {path}: cannot be opened as a zip archive ({error}); copy it again") from error


def _refuse_overlap(path: Path, archive: zipfile.ZipFile) -> None:
    """SourceError where members share their bytes: a small archive then has any number of large members."""
    if sum(info.compress_size for info in archive.infolist()) > path.stat().st_size:
        raise SourceError(f"--images {path}: its members overlap, as in a zip bomb; make the archive again")


def _is_image(member: str) -> bool:
    parts = [part for part in member.split("/") if part not in (".", "")] or [""]
    hidden = any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX"
    return not hidden and Path(member).suffix.lower() in IMAGE_SUFFIXES


def _member(archive: zipfile.ZipFile, place: int) -> np.ndarray:
    info = archive.infolist()[place]
    if info.file_size > _LARGEST_MEMBER:
        limit = _LARGEST_MEMBER >> 20
        raise UnreadableImageError(
            f"it has {info.file_size >> 20} MiB unpacked; the limit is {limit} MiB, so unpack it and pass the folder"
        )
    if info.compress_type not in _METHODS:
        raise UnreadableImageError("it is compressed with another method than deflate; zip the folder again")
    if info.flag_bits & _ENCRYPTED:
        raise UnreadableImageError("it is encrypted; unpack the archive with its password and pass the folder")
    try:
        return np.frombuffer(archive.read(info), np.uint8)
    except Exception as error:  # damaged, or an unknown method; zlib, lzma and bz2 have errors of their own
        raise UnreadableImageError(f"cannot be unpacked: {error}") from error
