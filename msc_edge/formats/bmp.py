"""BMP files: bit masks and 16-bit pixels, which OpenCV 5.0 misreads, are decoded here; damaged files are refused.

OpenCV ignores bit masks unless the header has room for a mask of alpha, shifts 5 and 6 bits to 8, so that white
becomes grey, and writes a run of RLE8 or RLE4 that continues past the end of its row into the next row.
"""

import struct
from typing import NamedTuple

import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.formats import DAMAGED
from msc_edge.formats.opencv import refuse_too_many_pixels

_RGB, _RLE8, _RLE4, _BITFIELDS = 0, 1, 2, 3
_FILE_HEADER, _OS2_HEADER, _INFO_HEADER = 14, 12, 40
_HEADERS = (_INFO_HEADER, 52, 56, 64, 108, 124)
_FIVE_BITS = (0x7C00, 0x3E0, 0x1F)
_MASK_BITS = (5, 6, 8)


class _Header(NamedTuple):
    offset: int
    """Of the pixels."""
    size: int
    """Of the header itself."""
    width: int
    height: int
    """Negative: the first row is at the top."""
    bits: int
    compression: int
    colours: int
    """Of the palette."""


def is_bmp(data: memoryview) -> bool:
    """Whether a file is a BMP, from its first bytes."""
    return data[:2] == b"BM"


def decode_bmp(data: memoryview) -> np.ndarray | None:
    """RGB uint8 (height, width, 3) of a BMP file with bit masks or 16 bits a pixel.

    None for other BMP files, which OpenCV reads right. UnreadableImageError for a file that is damaged, or that
    neither reads.
    """
    header = _header(data)
    if header is None:
        return None
    masked = header.bits in (16, 32) and header.compression == _BITFIELDS
    if masked or header.bits == 16:
        return _decoded(data, header, _masks(data) if masked else _FIVE_BITS)
    if header.compression == _RGB:
        _pixels(data, header)
    elif header.compression not in (_RLE8, _RLE4):
        raise UnreadableImageError(
            f"it is a BMP of a kind (compression {header.compression}, {header.bits} bits) that is not supported; save "
            "it as PNG"
        )
    elif not _runs_fit(data, header):
        raise UnreadableImageError(
            "it is a BMP with run lengths that continue past the end of a row, or that are cut off; save it as PNG"
        )
    return None


def _header(data: memoryview) -> _Header | None:
    """None for the header of OS/2, which has no compression."""
    if len(data) < _FILE_HEADER + _INFO_HEADER:
        raise UnreadableImageError(DAMAGED)
    offset, size = struct.unpack_from("<II", data, 10)
    if size == _OS2_HEADER:
        return None
    width, height, _, bits, compression, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", data, 18)
    if size not in _HEADERS or width <= 0 or height == 0:
        raise UnreadableImageError(f"{DAMAGED}: the header of this BMP is not valid")
    refuse_too_many_pixels(abs(height), width)
    if bits <= 8:
        colours = min(colours or 1 << bits, 1 << bits)
        if offset < _FILE_HEADER + size + 4 * colours:
            raise UnreadableImageError(f"{DAMAGED}: the pixels of this BMP overlap its palette")
    return _Header(offset, size, width, height, bits, compression, colours)


def _masks(data: memoryview) -> tuple[int, ...]:
    try:
        masks = struct.unpack_from("<3I", data, _FILE_HEADER + _INFO_HEADER)
    except struct.error as error:
        raise UnreadableImageError(DAMAGED) from error
    if any(bin(mask).count("1") not in _MASK_BITS or "01" in bin(mask)[2:] for mask in masks):
        raise UnreadableImageError("it is a BMP with bit masks that are not supported; save it as PNG")
    return masks


def _pixels(data: memoryview, header: _Header) -> np.ndarray:
    """The rows as stored, uint8 (|height|, bytes)."""
    height, stride = abs(header.height), (header.width * header.bits + 31) // 32 * 4
    if header.offset + height * stride > len(data):
        raise UnreadableImageError(f"{DAMAGED}: the last rows of this BMP are missing")
    return np.frombuffer(data, np.uint8, height * stride, header.offset).reshape(height, stride)


def _decoded(data: memoryview, header: _Header, masks: tuple[int, ...]) -> np.ndarray:
    pixels = _pixels(data, header).view(f"<u{header.bits // 8}")[:, : header.width].astype(np.uint32)
    channels = []
    for mask in masks:
        lowest = mask & -mask
        largest = mask // lowest
        channels.append((((pixels & mask) // lowest * 255 + largest // 2) // largest).astype(np.uint8))
    return np.ascontiguousarray(np.stack(channels, axis=2)[:: 1 if header.height < 0 else -1])


def _runs_fit(data: memoryview, header: _Header) -> bool:
    """Whether an RLE8 or RLE4 stream is complete, and no run continues past the end of its row."""
    width, height, position = header.width, abs(header.height), header.offset
    column, row = 0, 0
    while position + 1 < len(data):
        count, value = data[position], data[position + 1]
        position += 2
        if count:  # a run
            column += count
        elif value == 0:  # end of row
            column, row = 0, row + 1
        elif value == 1:  # end of image
            return row >= height - 1
        elif value == 2:  # a step to the right and up
            if position + 1 >= len(data):
                return False
            column, row = column + data[position], row + data[position + 1]
            position += 2
        else:  # pixels, padded to two bytes
            column += value
            size = value if header.compression == _RLE8 else (value + 1) // 2
            position += size + size % 2
        if column > width or row > height:
            return False
    return False  # the end of the image is missing
