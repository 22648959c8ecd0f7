"""Images from files: the one decoder of training and runtime, and the finding of image files.

Nothing else in this project touches pixel values outside the model (DESIGN, "Preprocessing lives in the model"),
so a score cannot differ between training and the line because an image was decoded differently.
"""

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# OpenCV reads the limit once, when it is first imported; it refuses a larger image before it allocates memory. Where
# cv2 was imported before, such an image is refused too, but only after it was decoded.
# A 109 kB PNG can ask for 900 megapixels.
MAX_MEGAPIXELS = 100
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_MEGAPIXELS * 1_000_000))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # failures are reported by us, once, with the path

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from pydantic import BaseModel, ConfigDict, Field, PositiveInt  # noqa: E402

from msc_edge.errors import SourceError, UnreadableImageError  # noqa: E402
from msc_edge.files import kind_of  # noqa: E402
from msc_edge.jpeg import jpeg_header  # noqa: E402

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})

_NO_IMAGE = "not an image, or a truncated or damaged one"
_LARGEST_FILE = 2**31 - 1  # cv2.imdecode counts bytes in an int
# Not IMREAD_COLOR_RGB: of a colour TIFF with 16 bits it gives uninitialised memory (OpenCV 4.11 to 5.0).
_BGR_AT_FULL_DEPTH = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_REDUCED_BGR = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_REDUCED_GREY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class DecodePolicy(BaseModel):
    """How an image file becomes uint8 RGB. Written in the kit, so that the line decodes as training did.

    Fixed by the format: EXIF orientation is applied, grey is repeated into three channels, an alpha channel is
    dropped (in a TIFF that declares it unassociated, libtiff first multiplies the colours by it), CMYK is converted
    in Adobe's inverted convention, and of a file with several pages the first is read. What has no checksum cannot
    be found damaged: a JPEG, BMP or PNM with altered bytes in the middle decodes to an altered image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bit_depth: Literal[8, 10, 12, 14, 16] = Field(
        default=8,
        description="Bits that hold the signal in files with 16 bits a channel; 8 refuses such files, because "
        "12-bit data read as 16-bit turns nearly black. Files with 8 bits a channel are read as they are.",
    )
    jpeg_keep: PositiveInt | None = Field(
        default=None,
        description="JPEG files are decoded at 1/2, 1/4 or 1/8 of their size, as long as the shorter side keeps so "
        "many pixels; null: at their full size.",
    )


_EIGHT_BITS = DecodePolicy()


def read_image(path: Path, policy: DecodePolicy = _EIGHT_BITS) -> np.ndarray:
    """Read one image file as uint8 RGB of shape (height, width, 3).

    Raises UnreadableImageError with the reason: missing, empty, not an image, truncated, too many pixels,
    or a bit depth that the policy does not allow.
    """
    return decode_image(bytes_of(path), policy)


def decode_image(data: np.ndarray, policy: DecodePolicy = _EIGHT_BITS) -> np.ndarray:
    """Decode the bytes of an image file, uint8 (n,), as `read_image` does, with its errors."""
    if data.size == 0:
        raise UnreadableImageError("the file is empty")
    _refuse_overlong_png_chunk(data.data)
    return _to_eight_bits(_decode(data, *_way_to_decode(data, policy)), policy)


def bytes_of(path: Path) -> np.ndarray:
    """The bytes of an image file, uint8 (n,). UnreadableImageError with the reason when they cannot be had."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            reason = "it is a folder; check its permissions and the length of its path"
            raise UnreadableImageError(f"cannot be opened: {reason}")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise UnreadableImageError("cannot be opened: it is not a regular file")
        if status.st_size > _LARGEST_FILE:
            raise UnreadableImageError(f"the file has {status.st_size >> 20} MiB, and the decoder takes less than 2048")
        # Not cv2.imread: it cannot open non-ASCII paths on Windows.
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UnreadableImageError(f"cannot be opened: {error.strerror or error}") from error
    except ValueError as error:  # an embedded zero byte in the path
        raise UnreadableImageError(f"cannot be opened: {error}") from error
    except MemoryError as error:
        raise UnreadableImageError("there is not enough memory to read it") from error
    return data


def _refuse_overlong_png_chunk(data: memoryview) -> None:
    # OpenCV takes as much memory as the four bytes of a chunk's length say, up to 4 GiB, before it looks for the chunk.
    position = 8
    if data[:position] != b"\x89PNG\r\n\x1a\n":
        return
    while position + 8 <= len(data) and data[position + 4 : position + 8] != b"IEND":
        position += 12 + int.from_bytes(data[position : position + 4])
    if position + 8 > len(data):
        raise UnreadableImageError(f"{_NO_IMAGE}: a chunk of this PNG runs past the end of the file")


def _way_to_decode(data: np.ndarray, policy: DecodePolicy) -> tuple[int, int | None]:
    """OpenCV's flags, and the conversion to RGB behind them."""
    header = jpeg_header(data.data)
    if header is None:
        return _BGR_AT_FULL_DEPTH, cv2.COLOR_BGR2RGB
    factor = header.reduction(policy.jpeg_keep) if policy.jpeg_keep else 1
    if header.channels == 1:  # asked for colours, the decoder would compute with three channels
        return _REDUCED_GREY[factor], cv2.COLOR_GRAY2RGB
    if factor > 1:
        return _REDUCED_BGR[factor], cv2.COLOR_BGR2RGB
    return cv2.IMREAD_COLOR_RGB, None


def _decode(data: np.ndarray, flags: int, conversion: int | None) -> np.ndarray:
    try:
        image = cv2.imdecode(data, flags)
        if image is not None and image.dtype in (np.uint8, np.uint16):
            _refuse_too_many_pixels(image)
            return image if conversion is None else cv2.cvtColor(image, conversion)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE_PIXELS" in str(error):
            raise _too_many_pixels() from error
        if error.code == cv2.Error.StsNoMem:
            raise UnreadableImageError("there is not enough memory to decode it") from error
        raise UnreadableImageError(f"the decoder refused it: {error.err}") from error
    except MemoryError as error:
        raise UnreadableImageError("there is not enough memory to decode it") from error
    if image is None:
        raise UnreadableImageError(f"{_NO_IMAGE}, or of a kind that is not supported")
    raise UnreadableImageError(f"its pixels are {image.dtype}; only 8 and 16 bits a channel are supported")


def _refuse_too_many_pixels(image: np.ndarray) -> None:
    # Where cv2 was imported before this module, OpenCV has not seen the limit; the answer must be the same.
    limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]
    if limit.isdecimal() and image.shape[0] * image.shape[1] > int(limit):
        raise _too_many_pixels()


def _too_many_pixels() -> UnreadableImageError:
    limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]  # OpenCV takes "400MB" too
    shown = f"{int(limit) / 1e6:g} megapixels" if limit.isdecimal() else f"{limit} pixels"
    return UnreadableImageError(
        f"larger than {shown}; shrink or tile it first, or raise the environment variable OPENCV_IO_MAX_IMAGE_PIXELS"
    )


def _to_eight_bits(image: np.ndarray, policy: DecodePolicy) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if policy.bit_depth == 8:
        raise UnreadableImageError(
            "it has 16 bits a channel, where 8 are expected; training must be told how many of them hold the signal: "
            "msc-edge train --bit-depth 10|12|14|16"
        )
    if (largest := int(image.max())) >> policy.bit_depth:
        raise UnreadableImageError(
            f"its largest value is {largest}, more than {policy.bit_depth} bits hold; "
            "the bit depth stated at training does not fit this file"
        )
    return (image >> (policy.bit_depth - 8)).astype(np.uint8)


@dataclass(frozen=True)
class FoundImages:
    """The image files found, sorted within each argument, each once; and how many other files were passed over."""

    paths: tuple[Path, ...]
    other_files: int


def find_images(arguments: Iterable[str | Path]) -> FoundImages:
    """Find image files in folders (any nesting), glob patterns and single files.

    Folders are searched for known image suffixes, links are followed, and a folder is entered once even if
    links make a loop. Hidden files and folders are passed over unless they are named. In a pattern, a part that
    exists under that very name, brackets and all, stands for itself. A file that is named outright is taken whatever
    its suffix. A folder below that cannot be listed is given in the place of its images, so that reading it says why
    they are missing. Raises SourceError when an argument names nothing, or when all together hold no image.
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
    """Files below a folder that match a pattern, given part by part; `**` is any depth of folders.

    Not glob.glob(recursive=True): two links that point at their own folder keep it busy for 2**40 rounds.
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
    """A folder and each one below it, with its files; hidden ones left out, each real folder entered once.

    Those below that cannot be listed go to `unlisted`.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [top]  # not os.walk: before Python 3.12 it fails on a thousand nested folders
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
