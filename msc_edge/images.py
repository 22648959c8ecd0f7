"""Pictures from files: the one decoder of training and runtime, and the finding of picture files.

Nothing else in this project touches pixel values outside the model (DESIGN, "Preprocessing lives in the model"),
so a score cannot differ between training and the line because a picture was decoded differently.
"""

import glob
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# OpenCV reads the limit once, when it is first imported; it refuses a larger picture before it allocates memory.
# A 109 kB PNG can ask for 900 megapixels.
MAX_MEGAPIXELS = 100
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_MEGAPIXELS * 1_000_000))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # failures are reported by us, once, with the path

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from msc_edge.errors import SourceError, UnreadableImageError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})

_RGB_AT_FULL_DEPTH = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH


class DecodePolicy(BaseModel):
    """How a picture file becomes uint8 RGB. Written in the kit, so that the line decodes as training did.

    Fixed by the format: EXIF orientation is applied, grey is repeated into three channels, an alpha channel is
    dropped, CMYK is converted, and of a file with several pages the first is read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bit_depth: Literal[8, 10, 12, 14, 16] = Field(
        default=8,
        description="Bits that hold the signal in files with 16 bits a channel; 8 refuses such files, because "
        "12-bit data read as 16-bit turns nearly black. Files with 8 bits a channel are read as they are.",
    )


def read_image(path: Path, policy: DecodePolicy = DecodePolicy()) -> np.ndarray:
    """Read one picture file as uint8 RGB of shape (height, width, 3).

    Raises UnreadableImageError with the reason: missing, empty, not a picture, truncated, too many pixels,
    or a bit depth that the policy does not allow.
    """
    try:
        # Not cv2.imread: it cannot open non-ASCII paths on Windows.
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UnreadableImageError(f"cannot be opened: {error.strerror or error}") from error
    except ValueError as error:  # an embedded zero byte in the path
        raise UnreadableImageError(f"cannot be opened: {error}") from error
    if data.size == 0:
        raise UnreadableImageError("the file is empty")
    return _to_eight_bits(_decode(data), policy)


def _decode(data: np.ndarray) -> np.ndarray:
    try:
        image = cv2.imdecode(data, _RGB_AT_FULL_DEPTH)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            limit = int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]) // 1_000_000
            raise UnreadableImageError(
                f"larger than {limit} megapixels; shrink or tile it first, "
                "or raise the environment variable OPENCV_IO_MAX_IMAGE_PIXELS"
            ) from error
        raise UnreadableImageError(f"the decoder refused it: {error.err}") from error
    except MemoryError as error:
        raise UnreadableImageError("there is not enough memory to decode it") from error
    if image is None:
        raise UnreadableImageError("not a picture, or a truncated or damaged one")
    return image


def _to_eight_bits(image: np.ndarray, policy: DecodePolicy) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise UnreadableImageError(f"its pixels are {image.dtype}; only 8 and 16 bits a channel are supported")
    if policy.bit_depth == 8:
        raise UnreadableImageError(
            "it has 16 bits a channel, and this kit was trained on 8; say at training how many of them "
            "hold the signal: msc-edge train --bit-depth 10|12|14|16"
        )
    if (largest := int(image.max())) >> policy.bit_depth:
        raise UnreadableImageError(
            f"its largest value is {largest}, more than {policy.bit_depth} bits hold; "
            "the bit depth stated at training does not fit this file"
        )
    return (image >> (policy.bit_depth - 8)).astype(np.uint8)


@dataclass(frozen=True)
class FoundImages:
    """The picture files found, sorted within each argument, each once; and how many other files were passed over."""

    paths: tuple[Path, ...]
    other_files: int


def find_images(arguments: Iterable[str | Path]) -> FoundImages:
    """Find picture files in folders (any nesting), glob patterns and single files.

    Folders are searched for known picture suffixes, links are followed, and a folder is entered once even if
    links make a loop. A file that is named outright is taken whatever its suffix. Raises SourceError when an
    argument names nothing, or when all together hold no picture.
    """
    found: dict[Path, None] = {}  # an ordered set
    others = 0
    named = [str(argument) for argument in arguments]
    for argument in named:
        kind, reason = _kind(argument)
        if kind == "file":
            found[Path(argument)] = None
            continue
        if kind == "folder":
            files = _walk(Path(argument))
        elif glob.has_magic(argument):
            # "photos/**" matches folders too: their files match by themselves.
            matches = (Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207
            files = sorted(match for match in matches if match.is_file())
            reason = "no file matches this pattern"
        else:
            files = []
        if not files and kind is None:
            raise SourceError(f"{argument}: {reason}; check the path")
        pictures = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        others += len(files) - len(pictures)
        found |= dict.fromkeys(pictures)
    if not found:
        raise SourceError(
            f"{', '.join(named) or 'the list of paths'}: no pictures found "
            f"({others} other files); looked for {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return FoundImages(tuple(found), others)


def _kind(argument: str) -> tuple[Literal["file", "folder"] | None, str]:
    try:
        mode = Path(argument).stat().st_mode
    except OSError as error:  # missing, too long a name, no permission
        return None, error.strerror or str(error)
    except ValueError as error:  # a zero byte in the name
        return None, str(error)
    return ("folder" if stat.S_ISDIR(mode) else "file"), ""


def _walk(folder: Path) -> list[Path]:
    """All files below a folder, sorted by path; hidden ones left out; each real folder entered once."""
    entered: set[tuple[int, int]] = set()
    files: list[Path] = []

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be listed: {error.strerror}; check the permissions") from error

    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = Path(root).stat()
        # Windows gives inode 0 on some file systems; there the resolved path identifies the folder.
        identity = (status.st_dev, status.st_ino or hash(Path(root).resolve()))
        if identity in entered:
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.extend(Path(root, name) for name in names if not name.startswith("."))
    return sorted(files)
