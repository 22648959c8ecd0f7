"""Images from files and from memory: the one decoder of training and runtime.

No other code outside the model changes pixel values, so training and the line decode a file to the same pixels.
"""

import os
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from msc_edge.arguments import described
from msc_edge.errors import SourceError, UnreadableImageError, UsageError
from msc_edge.files import open_regular
from msc_edge.formats import FIRST_BYTES, NO_MEMORY, NOT_SUPPORTED, damaged, is_image
from msc_edge.formats.bmp import decode_bmp, is_bmp
from msc_edge.formats.jpeg import START, jpeg_header, with_tables
from msc_edge.formats.jpeg_decoder import check_jpeg, decode_jpeg
from msc_edge.formats.opencv import decode_by_opencv, pixel_limit, refuse_too_many_pixels, three_channels
from msc_edge.formats.orientation import turned
from msc_edge.formats.png import decode_png
from msc_edge.formats.pnm import decode_pnm, is_pnm
from msc_edge.formats.tiff import TiffHeader, tiff_header
from msc_edge.formats.tiff_decoder import decode_tiff
from msc_edge.formats.webp import is_webp, webp_orientation

_LARGEST_FILE = 2**31 - 1  # cv2.imdecode counts bytes in an int
_LARGEST_PIXEL = 8  # bytes: four channels of 16 bits
_METADATA = 64 << 20  # bytes, at most
_SIXTEEN = 16


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
        raise UnreadableImageError("the file is empty; copy, save or take it again")
    try:
        image, bits = _decoded(data, policy.jpeg_keep)
    except MemoryError as error:
        raise UnreadableImageError(NO_MEMORY) from error
    return _to_eight_bits(image, policy, bits=bits)


def frame_to_rgb(frame: np.ndarray, policy: DecodePolicy = _EIGHT_BITS) -> np.ndarray:
    """A frame in memory as uint8 (height, width, 3): the pixels that `decode_image` gives for them in a file.

    `frame`: uint8 or uint16, (height, width), (height, width, 1) or (height, width, 3); the order of three channels is
    kept. uint16 holds values of the policy's bits: 0 to 4095 for 12. Nothing is concluded from the values. Raises
    SourceError for anything else and for an empty frame, UnreadableImageError for a bit depth that the policy does not
    allow.
    """
    if not isinstance(frame, np.ndarray):
        raise _not_a_frame(type(frame).__name__, _array_instead_of(frame))
    found = f"{frame.dtype} {frame.shape}"
    if frame.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        bits, kind = (8, "uint8") if policy.bit_depth == 8 else (policy.bit_depth, "uint16")
        raise _not_a_frame(found, f"convert it to {kind}, with values from 0 (black) to {2**bits - 1} (white)")
    pixels = frame[..., None] if frame.ndim == 2 else frame
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise _not_a_frame(found, _remedy_for(frame.shape))
    height, width = pixels.shape[:2]
    if height == 0 or width == 0:
        raise SourceError(f"the image is empty: {width}x{height} pixels; check what cut or read it")
    pixels = pixels.astype(frame.dtype.newbyteorder("="), copy=False)  # some cameras send the other byte order
    if pixels.dtype == np.uint16 and policy.bit_depth == 8:
        raise UnreadableImageError(
            "it is uint16, and the images at training had 8 bits a channel, so it is not known which bits hold the "
            "signal; pass uint8, as at training, or train with msc-edge train --bit-depth 10|12|14|16"
        )
    pixels = _to_eight_bits(pixels, policy, bits=_SIXTEEN)
    return pixels if pixels.shape[2] == 3 else three_channels(np.ascontiguousarray(pixels))


def _remedy_for(shape: tuple[int, ...]) -> str:
    """How to get a frame from an array of another shape."""
    if len(shape) == 4:
        return "pass several frames as a list"
    if len(shape) != 3:
        return "check what cut or read it"
    if shape[2] == 4:
        return "remove alpha with frame[..., :3]"
    if shape[0] in (1, 3, 4):
        return "its channels come first: numpy.moveaxis(frame, 0, -1) puts them last"
    return f"it has {shape[2]} channels: choose one or three of them"


def _array_instead_of(given: object) -> str:
    """How to get a frame, or a score, from something that is no array."""
    if given is None:
        return "the camera or the reader gave no image: check the path or the camera"
    if isinstance(given, str | os.PathLike):
        return "score a file with Detector.score_file"
    if isinstance(given, bytes | bytearray | memoryview):
        return "score the content of a file with Detector.score_bytes"
    return "pass a numpy array; numpy.asarray converts images of other libraries"


def _not_a_frame(found: str, remedy: str) -> SourceError:
    return SourceError(
        f"got {found}, and an image is expected as uint8 or uint16 (height, width), (height, width, 1) or "
        f"(height, width, 3); {remedy}"
    )


def _decoded(data: np.ndarray, jpeg_keep: int | None) -> tuple[np.ndarray, int]:
    """RGB (height, width, 3), uint8 or uint16, and the bits of each channel, as the file states."""
    view, bits = data.data, 8
    if view[: len(START)] == START:
        image = _decoded_jpeg(data, jpeg_keep)
    elif (png := decode_png(data)) is not None:
        image, bits = png, _SIXTEEN
    elif is_webp(view):
        image = turned(decode_by_opencv(data), webp_orientation(view))
    elif tiff := tiff_header(view):
        image, bits = _decoded_tiff(data, tiff), tiff.bits[0]
    elif is_bmp(view):
        bmp = decode_bmp(view)
        image = decode_by_opencv(data) if bmp is None else bmp
    elif is_pnm(view):
        image, bits = decode_pnm(view)
    else:
        raise UnreadableImageError(NOT_SUPPORTED)
    return image, bits


def _decoded_jpeg(data: np.ndarray, keep: int | None) -> np.ndarray:
    header = jpeg_header(data.data)
    if header is None:
        raise damaged()
    factor = header.reduction(keep) if keep else 1
    refuse_too_many_pixels(header.height // factor, header.width // factor)
    return three_channels(decode_jpeg(data, header, keep=keep))


def _decoded_tiff(data: np.ndarray, header: TiffHeader) -> np.ndarray:
    if header.misread:
        return decode_tiff(data, header)
    if header.is_jpeg:  # OpenCV drops the reports of libjpeg
        for (start, size), rows in zip(header.parts, header.rows_of_parts, strict=True):
            strip = with_tables(data.data[start : start + size], header.jpeg_tables)
            check_jpeg(strip, height=rows, width=header.width)
    if header.unassociated_alpha_at is not None:
        data = data.copy()
        data[header.unassociated_alpha_at] = 0  # unspecified: the colours stay as they are
    return decode_by_opencv(data)


def bytes_of(path: Path) -> np.ndarray:
    """The bytes of an image file, uint8 (n,). UnreadableImageError with the reason where it cannot be read.

    Of a file that is no image, or too large for one, only the first bytes are read.
    """
    try:
        if path.is_dir():
            raise UnreadableImageError(
                "cannot be opened: it is a folder; pass a file, or check the permissions and the length of the path"
            )
        with open_regular(path) as file:
            start = file.read(FIRST_BYTES)
            if start and not is_image(start):
                raise UnreadableImageError(NOT_SUPPORTED)
            size, most = os.fstat(file.fileno()).st_size, _METADATA + _LARGEST_PIXEL * pixel_limit()
            if size > (most := int(min(most, _LARGEST_FILE))):
                raise UnreadableImageError(
                    f"the file has {size >> 20} MiB; at most {most >> 20} MiB are read; shrink or tile the image"
                )
            file.seek(0)
            # Avoid cv2.imread: it cannot open non-ASCII paths on Windows.
            return np.fromfile(file, dtype=np.uint8, count=size)
    except OSError as error:
        raise UnreadableImageError(f"cannot be opened: {error.strerror or error}; check the path") from error
    except ValueError as error:  # an embedded zero byte in the path
        raise UnreadableImageError(f"cannot be opened: {error}; check the path") from error
    except MemoryError as error:
        raise UnreadableImageError(NO_MEMORY) from error


def file_content(data: bytes | np.ndarray) -> np.ndarray:
    """The content of an image file as uint8 (n,), for `decode_image`. UsageError for anything else."""
    expected = "expected the content of an image file, as bytes or uint8 (n,)"
    if isinstance(data, np.ndarray):
        if data.dtype == np.uint8 and data.ndim == 1:
            return data
        raise UsageError(f"data is {data.dtype} {data.shape}; {expected}; score pixels with Detector.score")
    if isinstance(data, bytes | bytearray | memoryview):
        return np.frombuffer(data, np.uint8)
    raise UsageError(f"data is {described(data)}; {expected}; score a file by its path with Detector.score_file")


def _to_eight_bits(image: np.ndarray, policy: DecodePolicy, *, bits: int) -> np.ndarray:
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
            "save it as the training images, or train with another --bit-depth"
        )
    return (image >> (policy.bit_depth - 8)).astype(np.uint8)
