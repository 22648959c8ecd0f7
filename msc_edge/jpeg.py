"""JPEG files that are larger than what looks at them: their size, read from the header, and the scale to decode at.

A JPEG decoder can give a picture at 1/2, 1/4 or 1/8 of its size for a fraction of the time: it then computes fewer
pixels from each block of 8 x 8 frequencies (Independent JPEG Group, libjpeg.txt, "scale_num, scale_denom").
"""

_START, _END_OF_HEADERS = b"\xff\xd8", 0xDA  # SOI, SOS
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG and DAC
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 to RST7, SOI


def jpeg_size(data: memoryview) -> tuple[int, int] | None:
    """(height, width) as stored, of a JPEG file's bytes; None where this is none, or its header is damaged."""
    if data[:2] != _START:
        return None
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _SIZES:
            return int.from_bytes(data[position + 5 : position + 7]), int.from_bytes(data[position + 7 : position + 9])
        elif marker == _END_OF_HEADERS:
            return None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None


def reduction(data: memoryview, keep: int) -> int:
    """1, 2, 4 or 8: by how much to divide both sides of a JPEG, so that the shorter one keeps at least `keep` pixels.

    1 for everything that is no JPEG.
    """
    size = jpeg_size(data)
    return 1 if size is None else max(factor for factor in (1, 2, 4, 8) if factor == 1 or min(size) // factor >= keep)
