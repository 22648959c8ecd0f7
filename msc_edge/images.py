"""Images from files: the one decoder of training and runtime.

No other code outside the model changes pixel values, so training and the line decode a file to the same pixels.
"""

import os
import stat
from pathlib import Path
from typing import Literal

# OpenCV reads this limit once, when it is first imported, and refuses a larger image before it allocates memory: a PNG
# of 109 kB can declare 900 megapixels. If cv2 was imported before this module, the refusal follows the decoding.
MAX_MEGAPIXELS = 100
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_MEGAPIXELS * 1_000_000))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # this package reports failures itself, with the path

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from pydantic import BaseModel, ConfigDict, Field, PositiveInt  # noqa: E402

from msc_edge.errors import UnreadableImageError  # noqa: E402
from msc_edge.formats.bmp import check_bmp  # noqa: E402
from msc_edge.formats.jpeg import jpeg_header  # noqa: E402
from msc_edge.formats.png import check_png  # noqa: E402
from msc_edge.formats.tiff import tiff_header  # noqa: E402
from msc_edge.formats.tiff_decoder import decode_tiff  # noqa: E402

_NOT_AN_IMAGE = "not an image, or a truncated or damaged one"
_LARGEST_FILE = 2**31 - 1  # cv2.imdecode counts bytes in an int
# Avoid IMREAD_COLOR_RGB: for a colour TIFF with 16 bits it returns uninitialised memory (OpenCV 4.11 to 5.0).
_BGR_AT_FULL_DEPTH = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_REDUCED_BGR = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_REDUCED_GREY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class DecodePolicy(BaseModel):
    """How an image file becomes uint8 RGB. The kit holds the policy, so the line decodes as training did.

    These rules are fixed: EXIF orientation is applied. Grey is repeated into three channels. An alpha channel is
    dropped. CMYK is converted in Adobe's inverted convention. Of a file with several pages the first one is read. JPEG,
    BMP and PNM files have no checksum: with altered bytes in the middle they decode to an altered image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bit_depth: Literal[8, 10, 12, 14, 16] = Field(
        default=8,
        description="bits that hold the signal in files with 16 bits a channel; 8 refuses such files, because "
        "12-bit data that is read as 16-bit turns nearly black. A TIFF with 10, 12 or 14 bits a channel must have as "
        "many. Files with 8 bits a channel are read as they are",
    )
    jpeg_keep: PositiveInt | None = Field(
        default=None,
        description="JPEG files are decoded at 1/2, 1/4 or 1/8 of their size, as long as the shorter side keeps at "
        "least this number of pixels; null: at full size",
    )


_EIGHT_BITS = DecodePolicy()


def read_image(path: Path, policy: DecodePolicy = _EIGHT_BITS) -> np.ndarray:
    """Read one image file as uint8 RGB of shape (height, width, 3).

    Raises UnreadableImageError with the reason: missing, empty, not an image, truncated, too many pixels, or a bit
    depth that the policy does not allow.
    """
    return decode_image(bytes_of(path), policy)


def decode_image(data: np.ndarray, policy: DecodePolicy = _EIGHT_BITS) -> np.ndarray:
    """Decode the bytes of an image file, uint8 (n,), to uint8 RGB (height, width, 3). Errors as for `read_image`."""
    if data.size == 0:
        raise UnreadableImageError("the file is empty")
    check_png(data.data)
    check_bmp(data.data)
    if tiff := tiff_header(data.data):
        if tiff.misread:
            refuse_too_many_pixels(tiff.height, tiff.width)
            return _to_eight_bits(decode_tiff(data, tiff), policy, bits=tiff.bits[0])
        if tiff.unassociated_alpha_at is not None:
            data = data.copy()
            data[tiff.unassociated_alpha_at] = 0  # unspecified: the colours stay as they are
    return _to_eight_bits(_decode(data, *_flags_and_conversion(data, policy)), policy)


def bytes_of(path: Path) -> np.ndarray:
    """The bytes of an image file, uint8 (n,). UnreadableImageError with the reason where it cannot be read."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            reason = "it is a folder; check its permissions and the length of its path"
            raise UnreadableImageError(f"cannot be opened: {reason}")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise UnreadableImageError("cannot be opened: it is not a regular file")
        if status.st_size > _LARGEST_FILE:
            raise UnreadableImageError(f"the file has {status.st_size >> 20} MiB; the decoder reads at most 2047 MiB")
        # Avoid cv2.imread: it cannot open non-ASCII paths on Windows.
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UnreadableImageError(f"cannot be opened: {error.strerror or error}") from error
    except ValueError as error:  # an embedded zero byte in the path
        raise UnreadableImageError(f"cannot be opened: {error}") from error
    except MemoryError as error:
        raise UnreadableImageError("there is not enough memory to read it") from error
    return data


def _flags_and_conversion(data: np.ndarray, policy: DecodePolicy) -> tuple[int, int | None]:
    """OpenCV's flags for imdecode, and the conversion of its result to RGB."""
    header = jpeg_header(data.data)
    if header is None:
        return _BGR_AT_FULL_DEPTH, cv2.COLOR_BGR2RGB
    factor = header.reduction(policy.jpeg_keep) if policy.jpeg_keep else 1
    if header.channels == 1:  # faster than decoding grey into three channels
        return _REDUCED_GREY[factor], cv2.COLOR_GRAY2RGB
    if factor > 1:
        return _REDUCED_BGR[factor], cv2.COLOR_BGR2RGB
    return cv2.IMREAD_COLOR_RGB, None


def _decode(data: np.ndarray, flags: int, conversion: int | None) -> np.ndarray:
    try:
        image = cv2.imdecode(data, flags)
        if image is not None and image.dtype in (np.uint8, np.uint16):
            refuse_too_many_pixels(*image.shape[:2])
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
        raise UnreadableImageError(f"{_NOT_AN_IMAGE}, or a format that is not supported")
    raise UnreadableImageError(f"its pixels are {image.dtype}; only 8 and 16 bits a channel are supported")


def refuse_too_many_pixels(height: int, width: int) -> None:
    """UnreadableImageError for an image that is larger than the limit of the decoder."""
    # If cv2 was imported before this module, OpenCV does not have the limit. The result must be the same.
    limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]
    if limit.isdecimal() and height * width > int(limit):
        raise _too_many_pixels()


def _too_many_pixels() -> UnreadableImageError:
    limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]  # OpenCV accepts "400MB" too
    shown = f"{int(limit) / 1e6:g} megapixels" if limit.isdecimal() else f"{limit} pixels"
    return UnreadableImageError(
        f"larger than {shown}; shrink or tile it first, or raise the environment variable OPENCV_IO_MAX_IMAGE_PIXELS"
    )


def _to_eight_bits(image: np.ndarray, policy: DecodePolicy, *, bits: int = 16) -> np.ndarray:
    """`bits`: of each channel, as the file states."""
    if image.dtype == np.uint8:
        return image
    if policy.bit_depth == 8:
        raise UnreadableImageError(
            f"it has {bits} bits a channel, and 8 are expected; pass the number of bits that hold the signal when "
            f"training: msc-edge train --bit-depth {'10|12|14|16' if bits == 16 else bits}"
        )
    if bits not in (16, policy.bit_depth):
        raise UnreadableImageError(
            f"it has {bits} bits a channel, and {policy.bit_depth} are expected, as at training; use the format of the "
            f"training images, or train with --bit-depth {bits}"
        )
    if (largest := int(image.max())) >> policy.bit_depth:
        raise UnreadableImageError(
            f"its largest value is {largest}, more than {policy.bit_depth} bits hold; "
            "the file does not fit the bit depth given at training"
        )
    return (image >> (policy.bit_depth - 8)).astype(np.uint8)
