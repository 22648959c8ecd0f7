"""BMP files: bit masks and run lengths that OpenCV 5.0 misreads.

OpenCV ignores the bit masks of files with 32 bits a pixel unless the header has room for a mask of alpha, and decodes
them as BGRX. A run of RLE8 or RLE4 that continues past the end of its row is written into the next row.
"""

import struct

from msc_edge.errors import UnreadableImageError

_RLE8, _RLE4, _BITFIELDS = 1, 2, 3
_FILE_HEADER, _INFO_HEADER, _WITH_ALPHA_MASK = 14, 40, 56
_BGRX = (0xFF0000, 0xFF00, 0xFF)


def check_bmp(data: memoryview) -> None:
    """UnreadableImageError for a BMP that OpenCV misreads; nothing for other files."""
    if data[:2] != b"BM" or len(data) < _FILE_HEADER + _INFO_HEADER:
        return
    (offset,) = struct.unpack_from("<I", data, 10)
    (header,) = struct.unpack_from("<I", data, _FILE_HEADER)
    if header < _INFO_HEADER:  # of OS/2: no compression
        return
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, _FILE_HEADER + 4)
    if compression == _BITFIELDS and bits == 32 and header < _WITH_ALPHA_MASK:
        masks = data[_FILE_HEADER + _INFO_HEADER :][:12]
        if len(masks) < 12 or struct.unpack("<3I", masks) != _BGRX:
            raise UnreadableImageError(
                "it is a BMP with other bit masks than those of BGRX, which are not supported; save it as PNG"
            )
    if compression in (_RLE8, _RLE4) and not _runs_fit(
        data[offset:], width, abs(height), in_bytes=compression == _RLE8
    ):
        raise UnreadableImageError(
            "it is a BMP with run lengths that continue past the end of a row, which is not supported; save it as PNG"
        )


def _runs_fit(data: memoryview, width: int, height: int, *, in_bytes: bool) -> bool:
    """Whether no run of an RLE8 or RLE4 stream continues past the end of its row."""
    position, column, row = 0, 0, 0
    while position + 1 < len(data):
        count, value = data[position], data[position + 1]
        position += 2
        if count:  # a run
            column += count
        elif value == 0:  # end of row
            column, row = 0, row + 1
        elif value == 1:  # end of image
            return True
        elif value == 2:  # a step to the right and up
            if position + 1 >= len(data):
                return False
            column, row = column + data[position], row + data[position + 1]
            position += 2
        else:  # pixels, padded to two bytes
            column += value
            size = value if in_bytes else (value + 1) // 2
            position += size + size % 2
        if column > width or row > height:
            return False
    return True  # a truncated file; the decoder says so
