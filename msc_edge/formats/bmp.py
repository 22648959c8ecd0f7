"""BMP files: what OpenCV 5.0 misreads is decoded here (bit masks, 16-bit pixels, the header of OS/2) or refused.

OpenCV ignores bit masks unless the header has room for a mask of alpha, shifts 5 and 6 bits to 8, so that white
becomes grey, and writes a run of RLE8 or RLE4 that continues past the end of its row into the next row. It takes bytes
of the header for pixels where the file says so, shows a number without a colour in black, and reads a palette of OS/2
with less than all colours past its end.
"""

import struct
from typing import NamedTuple

import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.formats import damaged
from msc_edge.formats.opencv import refuse_too_many_pixels

_RGB, _RLE8, _RLE4, _BITFIELDS = 0, 1, 2, 3
_FILE_HEADER, _OS2_HEADER, _INFO_HEADER = 14, 12, 40
_OS2_LONG_HEADER = 64  # where others have bit masks, it has something else
_HEADERS = (_OS2_HEADER, _INFO_HEADER, 52, 56, _OS2_LONG_HEADER, 108, 124)
_FIVE_BITS = (0x7C00, 0x3E0, 0x1F)
_MASK_BITS = (5, 6, 8)
_BITS = (1, 4, 8, 16, 24, 32)  # of a pixel


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
    """RGB uint8 (height, width, 3) of a BMP file with bit masks, 16 bits a pixel, or the 12-byte header of OS/2.

    None for other BMP files, which OpenCV reads right. UnreadableImageError for a file that is damaged, or that
    neither reads.
    """
    header = _header(data)
    masked = header.bits in (16, 32) and header.compression == _BITFIELDS and header.size != _OS2_LONG_HEADER
    if masked or (header.bits == 16 and header.compression == _RGB):
        return _decoded(data, header, _masks(data) if masked else _FIVE_BITS)
    if header.compression == _RGB:
        pixels = _pixels(data, header)
        if header.bits <= 8:
            pixels = _numbers(pixels, header)
            _check_colours(int(pixels.max()), header)
        return _decoded_os2(data, header, pixels) if header.size == _OS2_HEADER else None
    if (header.compression, header.bits) not in ((_RLE8, 8), (_RLE4, 4)):
        raise UnreadableImageError(
            f"it is a BMP of a kind (compression {header.compression}, {header.bits} bits) that is not supported; save "
            "it as PNG"
        )
    _check_runs(data, header)
    return None


def _header(data: memoryview) -> _Header:
    try:
        offset, size = struct.unpack_from("<II", data, 10)
        if size == _OS2_HEADER:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            compression = 0
            colours = min(1 << bits, max(0, offset - _FILE_HEADER - size) // 3) if bits <= 8 else 0
        else:
            width, height, _, bits, compression, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", data, 18)
    except struct.error as error:
        raise damaged() from error
    if size not in _HEADERS:
        raise UnreadableImageError(f"it is a BMP with a header of {size} bytes, which is not supported; save it as PNG")
    if width <= 0 or height == 0 or bits not in _BITS or (size == _OS2_HEADER and bits in (16, 32)):
        raise damaged("the header of this BMP is not valid")
    refuse_too_many_pixels(abs(height), width)
    end = _FILE_HEADER + size + (12 if size == _INFO_HEADER and compression == _BITFIELDS else 0)
    if offset < end:
        raise damaged("the pixels of this BMP overlap its header")
    if bits <= 8 and size != _OS2_HEADER:
        colours = min(colours or 1 << bits, 1 << bits)
        if offset < end + 4 * colours:
            raise damaged("the pixels of this BMP overlap its palette")
    return _Header(offset, size, width, height, bits, compression, colours)


def _masks(data: memoryview) -> tuple[int, ...]:
    try:
        masks = struct.unpack_from("<3I", data, _FILE_HEADER + _INFO_HEADER)
    except struct.error as error:
        raise damaged() from error
    if any(bin(mask).count("1") not in _MASK_BITS or "01" in bin(mask)[2:] for mask in masks):
        raise UnreadableImageError("it is a BMP with bit masks that are not supported; save it as PNG")
    return masks


def _pixels(data: memoryview, header: _Header) -> np.ndarray:
    """The rows as stored, uint8 (|height|, bytes)."""
    height, stride = abs(header.height), (header.width * header.bits + 31) // 32 * 4
    if header.offset + height * stride > len(data):
        raise damaged("the last rows of this BMP are missing")
    return np.frombuffer(data, np.uint8, height * stride, header.offset).reshape(height, stride)


def _numbers(pixels: np.ndarray, header: _Header) -> np.ndarray:
    """The numbers of the colours, uint8 (height, width), of rows as stored."""
    if header.bits == 1:
        pixels = np.unpackbits(pixels, axis=1)
    elif header.bits == 4:
        pixels = np.stack([pixels >> 4, pixels & 15], axis=2).reshape(len(pixels), -1)
    return pixels[:, : header.width]


def _check_colours(largest: int, header: _Header) -> None:
    if largest >= header.colours:
        raise damaged(f"a pixel of this BMP has colour {largest}, and its palette has {header.colours}")


def _decoded_os2(data: memoryview, header: _Header, pixels: np.ndarray) -> np.ndarray:
    """`pixels`: numbers of colours, or rows as stored with 24 bits a pixel."""
    if header.bits == 24:
        found = pixels[:, : 3 * header.width].reshape(len(pixels), header.width, 3)
    else:
        palette = np.frombuffer(data, np.uint8, 3 * header.colours, _FILE_HEADER + header.size)
        found = palette.reshape(-1, 3)[pixels]
    return np.ascontiguousarray(found[::-1, :, ::-1])


def _decoded(data: memoryview, header: _Header, masks: tuple[int, ...]) -> np.ndarray:
    pixels = _pixels(data, header).view(f"<u{header.bits // 8}")[:, : header.width].astype(np.uint32)
    channels = []
    for mask in masks:
        lowest = mask & -mask
        largest = mask // lowest
        channels.append((((pixels & mask) // lowest * 255 + largest // 2) // largest).astype(np.uint8))
    return np.ascontiguousarray(np.stack(channels, axis=2)[:: 1 if header.height < 0 else -1])


def _check_runs(data: memoryview, header: _Header) -> None:
    """UnreadableImageError for an RLE8 or RLE4 stream that OpenCV misreads."""
    largest = _largest_of_runs(data, header)
    if largest is None:
        raise UnreadableImageError(
            "it is a BMP with run lengths that continue past the end of a row, or that are cut off; save it as PNG"
        )
    _check_colours(largest, header)


def _largest_of_runs(data: memoryview, header: _Header) -> int | None:
    """The largest number of a colour; None where the stream is cut, or a run continues past the end of its row."""
    width, height, position = header.width, abs(header.height), header.offset
    column, row, largest = 0, 0, 0
    while position + 1 < len(data):
        count, value = data[position], data[position + 1]
        position += 2
        if count:  # a run
            column += count
            largest = max(largest, _largest(data[position - 1 : position], header))
        elif value == 0:  # end of row
            column, row = 0, row + 1
        elif value == 1:  # end of image
            return largest if row >= height - 1 else None
        elif value == 2:  # a step to the right and up
            if position + 1 >= len(data):
                return None
            column, row = column + data[position], row + data[position + 1]
            position += 2
        else:  # pixels, padded to two bytes
            column += value
            size = value if header.compression == _RLE8 else (value + 1) // 2
            largest = max(largest, _largest(data[position : position + size], header))
            position += size + size % 2
        if column > width or row > height:
            return None
    return None  # the end of the image is missing


def _largest(pixels: memoryview, header: _Header) -> int:
    """The largest number of a colour among bytes of an RLE8 or RLE4 stream; the padding of RLE4 is counted too."""
    if header.compression == _RLE8:
        return max(pixels, default=0)
    return max((max(each >> 4, each & 15) for each in pixels), default=0)
