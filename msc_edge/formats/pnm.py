"""PNM files (netpbm: pbm, pgm, ppm), decoded here, because OpenCV 5.0 misreads several of them.

OpenCV does not scale values to their declared largest value, takes 1.5 in a text for 1 and 5, and begins one byte early
where the line ends of the header are those of Windows: red, green and blue then change places.
"""

import math
import re

import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.formats import damaged
from msc_edge.formats.opencv import refuse_too_many_pixels, three_channels

_BLANK = b" \t\r\n\v\f"
# A comment directly behind a number is refused: decoders read it differently.
_SPACE = rb"[" + _BLANK + rb"](?:[" + _BLANK + rb"]|#[^\r\n]*[\r\n])*"
_HEADER = re.compile(
    # A bitmap has no largest value.
    rb"P(?:[14]" + 2 * (_SPACE + rb"(\d{1,9})") + rb"|[2356]" + 3 * (_SPACE + rb"(\d{1,9})") + rb")[" + _BLANK + rb"]"
)
_BITMAPS, _TEXTS, _COLOURS = b"14", b"123", b"36"  # kinds, by the second byte
_LONGEST_HEADER = 4096  # with comments
_EIGHT = 8
_BITS = {255: _EIGHT, 1023: 10, 4095: 12, 16383: 14, 65535: 16}
_COMMENT = re.compile(rb"#[^\r\n]*")
_NO_NUMBER = re.compile(rb"[^\d" + _BLANK + rb"]")


def is_pnm(data: memoryview) -> bool:
    """Whether a file is a PNM, from its first bytes."""
    return len(data) > 2 and data[0] == ord("P") and bytes(data[1:2]) in b"123456"


def decode_pnm(data: memoryview) -> tuple[np.ndarray, int]:
    """RGB (height, width, 3), uint8 or uint16, of a PNM file, and the bits of each channel, as it states.

    UnreadableImageError for a file with fewer or more pixels than its header states, with a value above the stated
    largest one in a text, or with another largest value than one of 8, 10, 12, 14 or 16 bits.
    """
    header = _HEADER.match(data[:_LONGEST_HEADER])
    if header is None:
        raise damaged("the header of this PNM is not valid")
    kind = header[0][1:2]
    numbers = [int(found) for found in header.groups() if found is not None]
    width, height, largest = (*numbers, 1)[:3]
    if not width or not height:
        raise damaged("the header of this PNM is not valid")
    bits = 1 if kind in _BITMAPS else _BITS.get(largest)
    if bits is None:
        raise UnreadableImageError(
            f"it is a PNM whose largest value is {largest}, and 255, 1023, 4095, 16383 or 65535 are supported; save it "
            "as PNG"
        )
    refuse_too_many_pixels(height, width)
    raster, shape = data[header.end() :], (height, width, 3 if kind in _COLOURS else 1)
    if kind in _BITMAPS:
        pixels = _bitmap(raster, height, width, text=kind in _TEXTS)
    elif kind in _TEXTS:
        pixels = _numbers(raster, shape, largest)
    else:
        pixels = _binary(raster, shape, np.dtype(np.uint8 if bits == _EIGHT else ">u2"))
    return three_channels(pixels.astype(np.uint8 if bits <= _EIGHT else np.uint16)), bits


def _bitmap(raster: memoryview, height: int, width: int, *, text: bool) -> np.ndarray:
    """White as 255, uint8 (height, width, 1); in the file, 1 is black."""
    if text:
        digits = np.frombuffer(_without_comments(raster).translate(None, _BLANK), np.uint8)
        black = _of_size(digits, (height, width, 1)) - ord("0")
    else:
        rows = _binary(raster, (height, -(-width // 8)), np.dtype(np.uint8))
        black = np.unpackbits(rows, axis=1)[:, :width, None]
    if black.max() > 1:
        raise damaged("a pixel of this PNM is neither 0 nor 1")
    return (1 - black) * np.uint8(255)


def _numbers(raster: memoryview, shape: tuple[int, ...], largest: int) -> np.ndarray:
    text = _without_comments(raster)
    if _NO_NUMBER.search(text) or text[-1:] not in _BLANK:
        raise damaged("a value of this PNM is not a whole number, or is cut off")
    values = _of_size(np.fromstring(text.decode("ascii"), np.float32, sep=" "), shape)  # exact up to 2**24
    if values.max() > largest:
        raise damaged(f"a value of this PNM is above {largest}, its largest one")
    return values


def _binary(raster: memoryview, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Pixels that are followed by nothing, by line ends, which an editor may add, or by another image."""
    size = math.prod(shape) * kind.itemsize
    extra = bytes(raster[size : size + _LONGEST_HEADER]).lstrip(b"\r\n")
    # Behind the line end of Windows, or a comment, the pixels may begin later.
    if len(raster) > size and (raster[:1] in (b"\n", b"#") or (extra and not _HEADER.match(extra))):
        raise damaged("this PNM has more pixels than it states")
    return _of_size(np.frombuffer(raster[: min(size, len(raster) // kind.itemsize * kind.itemsize)], kind), shape)


def _without_comments(raster: memoryview) -> bytes:
    return _COMMENT.sub(b"", raster)


def _of_size(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """UnreadableImageError where there are fewer values, or more."""
    if values.size != math.prod(shape):
        raise damaged(f"this PNM has {'fewer' if values.size < math.prod(shape) else 'more'} pixels than it states")
    return values.reshape(shape)
