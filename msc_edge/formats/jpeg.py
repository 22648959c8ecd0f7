"""The header of a JPEG file: its segments up to the image data (ITU-T T.81, annex B), and what they state."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from msc_edge.formats.tiff import orientation_of

START = b"\xff\xd8\xff"  # SOI, and the first byte of a segment
_START_OF_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG and DAC
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 to RST7, SOI
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
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
        elif (marker >= _APP0 and marker != _APP14) or marker in _WITHOUT_LENGTH:
            continue
        kept += bytes((0xFF, marker)) + (2 + len(payload)).to_bytes(2) + payload
    return bytes(kept + data[position:])


def restarts_in_order(data: memoryview) -> bool | None:
    """Whether all restart markers that the header announces are there, in order; None where it announces none.

    A file of one scan. Cameras write these markers into the image data at regular intervals, numbered from 0 to 7.
    """
    interval, blocks, position = 0, 0, 0
    for marker, start, end in _segments(data):
        payload, position = data[start:end], end
        if marker == _RESTART_INTERVAL:
            interval = int.from_bytes(payload)
        elif marker in _FRAMES:
            height, width = (int.from_bytes(payload[at : at + 2]) for at in (1, 3))
            across, down = (max(each >> 4 for each in payload[7::3]), max(each & 15 for each in payload[7::3]))
            if payload[5] == 1:  # of one component, a block has 8 x 8 pixels whatever its factors
                across = down = 1
            blocks = -(-height // (8 * max(down, 1))) * -(-width // (8 * max(across, 1)))
    if not interval:
        return None
    found = [int(number) & 7 for number in b"".join(_RESTART.findall(data[position:]))]
    expected = -(-blocks // interval) - 1
    return len(found) >= expected and found == [number % 8 for number in range(len(found))]


def _segments(data: memoryview) -> Iterator[_Segment]:
    """The segments of the header, up to the first start of a scan. Bytes between them are skipped, as libjpeg does."""
    if data[: len(START)] != START:
        return
    position, marker = 2, 0
    while marker != _START_OF_SCAN:
        while position + 4 <= len(data) and (data[position] != 0xFF or data[position + 1] in (0, 0xFF)):
            position += 1
        if position + 4 > len(data):
            return
        marker = data[position + 1]
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
        if end > len(data):
            return
        yield _Segment(marker, position + 4, end)
        position = end
