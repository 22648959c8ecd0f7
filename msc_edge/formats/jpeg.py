"""The header of a JPEG file, and the scale at which a large one is decoded.

A JPEG decoder can decode at 1/2, 1/4 or 1/8 of the size in a fraction of the time: it computes fewer pixels from each
block of 8 x 8 frequencies (Independent JPEG Group, libjpeg.txt, "scale_num, scale_denom").
"""

from typing import NamedTuple

_START, _END_OF_HEADERS = b"\xff\xd8", 0xDA  # SOI, SOS
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG and DAC
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 to RST7, SOI


class JpegHeader(NamedTuple):
    """Size and channels of an image as stored, before EXIF orientation is applied."""

    height: int
    width: int
    channels: int
    """1: grey; 3: colour; 4: CMYK."""

    def reduction(self, keep: int) -> int:
        """The divisor of both sides, 1, 2, 4 or 8, for which the shorter side keeps at least `keep` pixels."""
        short = min(self.height, self.width)
        return max(factor for factor in (1, 2, 4, 8) if factor == 1 or short // factor >= keep)


def jpeg_header(data: memoryview) -> JpegHeader | None:
    """The header of a JPEG file, from its bytes; None for another file and for a damaged header."""
    if data[:2] != _START:
        return None
    position = 2
    while position + 10 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _FRAMES:
            height, width = (int.from_bytes(data[position + at : position + at + 2]) for at in (5, 7))
            return JpegHeader(height, width, data[position + 9])
        elif marker == _END_OF_HEADERS:
            return None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None
