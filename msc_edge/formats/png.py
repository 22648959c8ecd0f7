"""PNG files: every chunk and the length of the pixels are checked before OpenCV decodes them (W3C PNG, third edition).

libpng prints a line of its own for each fault, and shows a number without a colour in black. Only what makes pixels is
passed on to it: the header, the palette, and the inflated pixels, stored without compression, so that they are inflated
once (docs/decisions.md has the cost). More than OpenCV takes at once (2 GiB) are passed on as they were.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from isal import isal_zlib

from msc_edge.formats import damaged
from msc_edge.formats.opencv import decode_by_opencv, refuse_too_many_pixels
from msc_edge.formats.orientation import turned
from msc_edge.formats.tiff import orientation_of, without_prefix

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_USED = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf")
_PALETTE = 3
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # of each colour type
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
_LARGEST_SIDE = 1_000_000  # libpng's limit
_LARGEST_FILTER = 4
_LARGEST_BLOCK = 0xFFFF
_MOST_STORED = (2**31 - 1) * 999 // 1000  # bytes; the rest is for what is between the blocks
# Of an interlaced file: first column, first row, and the steps of both (Adam7).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    interlaced: int

    def passes(self) -> Iterator[tuple[int, int]]:
        """Number of rows, and bytes of a row with its filter, of each part of the pixels."""
        for column, row, right, down in _PASSES if self.interlaced else ((0, 0, 1, 1),):
            width, height = -(-(self.width - column) // right), -(-(self.height - row) // down)
            if width > 0 and height > 0:
                yield height, 1 + (width * _CHANNELS[self.colour] * self.depth + 7) // 8


class _Chunks(NamedTuple):
    """What a file consists of, without the chunks that change no pixel."""

    header: _Header
    palette: bytes
    pixels: bytes
    """Compressed."""
    orientation: int
    """Of EXIF, 1 to 8."""


def decode_png(data: np.ndarray) -> np.ndarray | None:
    """RGB (height, width, 3), uint8 or uint16, of a PNG file, uint8 (n,); None for another file.

    UnreadableImageError for a damaged file: a chunk that is longer than the file, a wrong checksum, a header that is
    not valid, pixels that are missing, left over or in several places, a number without a colour. Of an animated file
    the image is decoded that every program shows.
    """
    view = data.data
    if view[: len(_SIGNATURE)] != _SIGNATURE:
        return None
    header, palette, compressed, orientation = _chunks(view)
    kept = [_SIGNATURE, *_chunk(b"IHDR", view[16:29])]
    unused = None
    if header.colour == _PALETTE:
        palette, unused = _filled(palette, 1 << header.depth)
        kept += _chunk(b"PLTE", palette)
    pixels = _inflated(compressed, header)
    kept += _chunk(b"IDAT", *(_stored(pixels) if len(pixels) <= _MOST_STORED else [compressed]))
    file = np.frombuffer(b"".join(kept + _chunk(b"IEND")), np.uint8)
    del kept, pixels  # each copy of 100 megapixels may have 800 MB
    image = decode_by_opencv(file)
    if unused is not None and (image[..., 0] == unused).any():
        raise damaged("a pixel of this PNG has a colour that its palette does not have")
    return turned(image, orientation)


def _chunks(view: memoryview) -> _Chunks:
    header, palette, pixels, orientation = None, b"", [], 1
    position, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        previous, kind = kind, bytes(view[position + 4 : position + 8])
        end = position + 12 + int.from_bytes(view[position : position + 4])
        if len(kind) < 4 or end > len(view):
            raise damaged("a chunk of this PNG runs past the end of the file")
        chunk = view[position:end]
        position = end
        if header is None and kind != b"IHDR":
            raise damaged("this PNG does not begin with its header")
        if kind not in _USED:
            continue
        if isal_zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise damaged(f"the checksum of a chunk ({kind.decode()}) of this PNG is wrong")
        content = chunk[8:-4]
        if kind == b"IHDR":
            if header is not None:
                raise damaged("this PNG has two headers")
            header = _header(content)
        elif kind == b"PLTE":
            if palette or pixels:
                raise damaged("this PNG has two palettes, or one after its pixels")
            palette = bytes(content)
        elif kind == b"IDAT":
            if pixels and previous != b"IDAT":
                raise damaged("the pixels of this PNG are in several places")
            pixels.append(content)
        elif kind == b"eXIf":
            orientation = orientation_of(without_prefix(content))
    assert header is not None, "the first chunk"
    return _Chunks(header, palette, b"".join(pixels), orientation)


def _header(content: memoryview) -> _Header:
    if len(content) != 13 or content[8] not in _DEPTHS.get(content[9], ()):
        raise damaged("the header of this PNG has no valid number of bits and colour type")
    width, height = int.from_bytes(content[:4]), int.from_bytes(content[4:8])
    compression, filtering, interlaced = content[10:]
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE) or compression or filtering or interlaced > 1:
        raise damaged("the header of this PNG has no valid size or method")
    refuse_too_many_pixels(height, width)
    return _Header(width, height, content[8], content[9], interlaced)


def _inflated(compressed: bytes, header: _Header) -> bytes:
    """The rows with their filters. What follows the compressed data, as some programs write, is ignored."""
    passes = list(header.passes())
    wanted = sum(rows * stride for rows, stride in passes)
    stream = isal_zlib.decompressobj()
    try:
        pixels = stream.decompress(compressed, wanted)
        more = stream.decompress(stream.unconsumed_tail, 1)  # reads the checksum
    except isal_zlib.error as error:  # pyright: ignore[reportGeneralTypeIssues]  (declared as an instance)
        raise damaged(f"the pixels of this PNG are damaged ({error})") from error
    if len(pixels) < wanted or not (stream.eof or more):
        raise damaged("the last rows of this PNG are missing, or their checksum is")
    if more:
        raise damaged("this PNG has more pixels than its header states")
    position = 0
    for rows, stride in passes:
        filters = np.frombuffer(pixels, np.uint8, rows * stride, position)[::stride]
        if filters.max() > _LARGEST_FILTER:
            raise damaged("a row of this PNG has a filter that does not exist")
        position += rows * stride
    return pixels


def _stored(content: bytes) -> list[bytes | memoryview]:
    """The parts of zlib data without compression (RFC 1950; RFC 1951, section 3.2.4)."""
    view, parts = memoryview(content), [b"\x78\x01"]
    for start in range(0, len(content), _LARGEST_BLOCK):
        block = view[start : start + _LARGEST_BLOCK]
        length = len(block).to_bytes(2, "little")
        is_last = start + len(block) == len(content)
        parts += [bytes([is_last]), length, bytes(byte ^ 0xFF for byte in length), block]
    return [*parts, isal_zlib.adler32(content).to_bytes(4)]


def _filled(palette: bytes, colours: int) -> tuple[bytes, int | None]:
    """The palette with all colours that a pixel can name, and the red that only the added ones have; None: no such."""
    if not palette or len(palette) % 3:
        raise damaged("the palette of this PNG is missing, or not a list of colours")
    missing = colours - len(palette) // 3
    if missing <= 0:
        return palette[: 3 * colours], None
    unused = min(set(range(256)) - set(palette[::3]))
    return palette + missing * bytes([unused, 0, 0]), unused


def _chunk(kind: bytes, *content: bytes | memoryview) -> list[bytes | memoryview]:
    """The parts of a chunk."""
    checksum = isal_zlib.crc32(kind)
    for part in content:
        checksum = isal_zlib.crc32(part, checksum)
    return [sum(map(len, content)).to_bytes(4), kind, *content, checksum.to_bytes(4)]
