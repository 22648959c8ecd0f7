"""PNG files: their chunks are checked, and only those that OpenCV needs are passed on (W3C PNG, sections 5, 11)."""

import zlib
from typing import NamedTuple

import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.formats import DAMAGED
from msc_edge.formats.tiff import orientation_of

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_EXIF = b"eXIf"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # of each colour type


class CheckedPng(NamedTuple):
    """A PNG file as it is passed to OpenCV."""

    data: np.ndarray
    """Without chunks that change no pixel, uint8 (n,)."""
    orientation: int
    """Of EXIF, 1 to 8."""


def checked_png(data: np.ndarray) -> CheckedPng | None:
    """Check the chunks of a PNG file, uint8 (n,); None for another file.

    UnreadableImageError for a chunk that is longer than the file, before OpenCV allocates that length, for a chunk
    with a wrong checksum, for a header that is not valid, and for pixels in several places. libpng prints a line for
    each fault that it finds, also in chunks that change no pixel, such as colour profiles; these are left out. Of an
    animated file, OpenCV would read a frame that other programs do not show first.
    """
    view = data.data
    if view[: len(_SIGNATURE)] != _SIGNATURE:
        return None
    kept, position, kind, orientation = [view[: len(_SIGNATURE)]], len(_SIGNATURE), b"", 1
    pixels_ended = False
    while kind != b"IEND":
        previous, kind = kind, bytes(view[position + 4 : position + 8])
        end = position + 12 + int.from_bytes(view[position : position + 4])
        if len(kind) < 4 or end > len(view):
            raise _damaged("a chunk of this PNG runs past the end of the file")
        chunk = view[position:end]
        position = end
        if kind not in _CRITICAL and kind != _EXIF:
            continue
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise _damaged(f"the checksum of a chunk ({kind.decode()}) of this PNG is wrong")
        if kind == _EXIF:
            orientation = orientation_of(chunk[8:-4])
            continue
        if kind == b"IHDR":
            _check_header(chunk[8:-4])
        elif kind == b"IDAT" and pixels_ended and previous != b"IDAT":
            raise _damaged("the pixels of this PNG are in several places")
        pixels_ended = pixels_ended or kind == b"IDAT"
        kept.append(chunk)
    return CheckedPng(np.frombuffer(b"".join(kept), np.uint8), orientation)


def _check_header(header: memoryview) -> None:
    if len(header) != 13 or header[8] not in _DEPTHS.get(header[9], ()):
        raise _damaged("the header of this PNG has no valid number of bits and colour type")


def _damaged(reason: str) -> UnreadableImageError:
    return UnreadableImageError(f"{DAMAGED}: {reason}")
