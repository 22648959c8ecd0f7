"""The header of a JPEG file: its segments up to the image data (ITU-T T.81, annex B), and what they state."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from msc_edge.formats.tiff import orientation_of

START = b"\xff\xd8\xff"  # SOI, and the first byte of a segment
_START_OF_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_MOST_BETWEEN = 1 << 16  # bytes between two segments
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG and DAC
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 to RST7, SOI
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_END = b"\xff\xd9"  # EOI
_WIDEST = 65_500  # pixels, of libjpeg
_EXIF = b"Exif\0\0"
_JFIF = b"JFIF\0"
_SEQUENTIAL_SCAN = b"\0\x3f\0"  # first and last frequency, bit position: the only values of a sequential frame


class JpegHeader(NamedTuple):
    """Size and channels of an image as stored, before the orientation is applied."""

    height: int
    width: int
    channels: int
    """1: grey; 3: colour; 4: CMYK."""
    orientation: int = 1
    """Of EXIF, 1 to 8."""

    def reduction(self, keep: int) -> int:
        """The divisor of both sides, 1, 2, 4 or 8, for which the shorter side keeps at least `keep` pixels."""
        short = min(self.height, self.width)
        return max(factor for factor in (1, 2, 4, 8) if factor == 1 or short // factor >= keep)


class _Segment(NamedTuple):
    marker: int
    start: int
    """Of the payload, behind the length."""
    end: int


def jpeg_header(data: memoryview) -> JpegHeader | None:
    """The header of a JPEG file, from its bytes; None for another file and for a damaged header."""
    frame, orientation = None, None
    for segment in _segments(data):
        payload = data[segment.start : segment.end]
        if segment.marker in _FRAMES and frame is None and len(payload) >= 6:
            frame = payload
        elif segment.marker == _APP1 and orientation is None and payload[: len(_EXIF)] == _EXIF:
            orientation = orientation_of(payload[len(_EXIF) :])
    if frame is None:
        return None
    height, width = (int.from_bytes(frame[at : at + 2]) for at in (1, 3))
    return JpegHeader(height, width, frame[5], orientation or 1)


def without_metadata(data: memoryview) -> bytes:
    """A JPEG file without what is not needed to decode it: comments, profiles, bytes between segments.

    What common cameras and editors write wrongly without harm is put right: an unknown revision of JFIF, and the
    range of frequencies of a sequential scan. Damaged image data stay as they are.
    """
    kept, position = bytearray(START[:2]), 2
    sequential = False
    for marker, start, end in _segments(data):
        position = end
        payload = bytearray(data[start:end])
        sequential = sequential or marker in (0xC0, 0xC1)
        if marker == _APP0 and payload[: len(_JFIF)] == _JFIF:
            payload[5:7] = b"\x01\x02"
        elif marker == _START_OF_SCAN and sequential:
            payload[-3:] = _SEQUENTIAL_SCAN
        elif marker >= _APP0 and marker != _APP14:
            continue
        kept += bytes((0xFF, marker)) + (2 + len(payload)).to_bytes(2) + payload
    return bytes(kept + data[position:])


def with_tables(data: memoryview, tables: bytes) -> bytes:
    """A JPEG file with the tables of another one, which has no pixels, as the strips of a TIFF file need them."""
    return bytes(tables).removesuffix(_END) + bytes(data[len(START) - 1 :]) if tables else bytes(data)


def restart_intervals(data: memoryview) -> list[bytes] | None:
    """Each restart interval of the image data as a JPEG file of its own, which is one row of blocks.

    Cameras write restart markers into the data at regular intervals, numbered from 0 to 7, and each interval is decoded
    without those before it. None where the header announces no intervals. ValueError where a marker is missing.
    """
    header, interval, blocks, block, position = bytearray(START[:2]), 0, 0, (8, 8), 0
    frame_at = 0
    for marker, start, end in _segments(data):
        payload, position = data[start:end], end
        if marker == _RESTART_INTERVAL:
            interval = int.from_bytes(payload)
            continue
        if marker in _FRAMES:
            frame_at = len(header) + 5  # of height and width
            height, width = (int.from_bytes(payload[at : at + 2]) for at in (1, 3))
            down, across = max(each & 15 for each in payload[7::3]), max(each >> 4 for each in payload[7::3])
            # Of one component, a block has 8 x 8 pixels whatever its factors.
            block = (8, 8) if payload[5] == 1 else (8 * down, 8 * across)
            if 0 in block:
                return None
            blocks = -(-height // block[0]) * -(-width // block[1])
        header += bytes((0xFF, marker)) + (2 + len(payload)).to_bytes(2) + payload
    if not interval:
        return None
    marks = [(found.start(), data[found.end() - 1] & 7) for found in _RESTART.finditer(data, position)]
    if [number for _, number in marks] != [number % 8 for number in range(-(-blocks // interval) - 1)]:
        raise ValueError("a restart marker is missing")
    starts = [position, *(at + 2 for at, _ in marks)]
    ends = [*(at for at, _ in marks), len(data)]
    files = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        width = min(interval, blocks - number * interval) * block[1]
        if width > _WIDEST:
            raise ValueError("a restart interval is too long to be checked")
        header[frame_at : frame_at + 4] = block[0].to_bytes(2) + width.to_bytes(2)
        files.append(bytes(header + data[start:end] + (_END if end != len(data) else b"")))
    return files


def is_complete(data: memoryview) -> bool:
    """Whether the scans of a progressive file bring every coefficient of every component to its full precision.

    ITU-T T.81, annex G: a scan has the frequencies from `first` to `last`, and all but the `low` lowest bits of them.
    libjpeg decodes a file that lost its last scans without a warning, to an image without detail.
    """
    components: bytes = b""
    precision: dict[tuple[int, int], int] = {}
    for marker, start, end in _segments(data, to_the_end=True):
        payload = bytes(data[start:end])
        if marker in _PROGRESSIVE:
            components = payload[6::3]
        elif marker in _FRAMES:
            return True
        elif marker == _START_OF_SCAN and len(payload) >= len(_SEQUENTIAL_SCAN):
            first, last, low = payload[-3], payload[-2], payload[-1] & 15
            for component in payload[1:-3:2]:
                precision |= {(component, frequency): low for frequency in range(first, last + 1)}
    return all(precision.get((component, frequency)) == 0 for component in components for frequency in range(64))


def _segments(data: memoryview, *, to_the_end: bool = False) -> Iterator[_Segment]:
    """The segments up to the first start of a scan, or those of all scans.

    Bytes between segments are skipped, as libjpeg does; image data are among them.
    """
    if data[: len(START)] != START:
        return
    position, marker = 2, 0
    while to_the_end or marker != _START_OF_SCAN:
        found = _MARKER.search(data, position)
        if (
            found is None
            or (found.start() - position > _MOST_BETWEEN and not to_the_end)
            or found.start() + 4 > len(data)
        ):
            return
        position = found.start()
        marker = data[position + 1]
        if marker == _END[1]:
            return
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
        if end > len(data):
            return
        yield _Segment(marker, position + 4, end)
        position = end
