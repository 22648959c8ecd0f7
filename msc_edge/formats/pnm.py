"""PNM files: their header, and the largest values that OpenCV 5.0 reads right (netpbm: pbm, pgm, ppm).

OpenCV does not scale values to their declared largest value, except for some text files.
"""

import re

from msc_edge.errors import UnreadableImageError
from msc_edge.formats import DAMAGED

_SPACE = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([1-6])" + 2 * (_SPACE + rb"(\d{1,9})") + rb"(?:" + _SPACE + rb"(\d{1,5}))?[ \t\r\n\v\f]")
_BITMAPS = (b"1", b"4")
_LONGEST_HEADER = 4096  # with comments
_BITS = {255: 8, 1023: 10, 4095: 12, 16383: 14, 65535: 16}


def is_pnm(data: memoryview) -> bool:
    """Whether a file is a PNM, from its first bytes."""
    return len(data) > 2 and data[0] == ord("P") and bytes(data[1:2]) in b"123456"


def bits_of_pnm(data: memoryview) -> int:
    """The bits of each channel of a PNM file, 1 to 16. UnreadableImageError for a file that OpenCV misreads."""
    header = _HEADER.match(data[:_LONGEST_HEADER])
    if header and header[1] in _BITMAPS:
        return 1
    if header is None or header[4] is None:
        raise UnreadableImageError(f"{DAMAGED}: the header of this PNM is not valid")
    bits = _BITS.get(int(header[4]))
    if bits is None:
        raise UnreadableImageError(
            f"it is a PNM whose largest value is {int(header[4])}, and 255, 1023, 4095, 16383 or 65535 are "
            "supported; save it as PNG"
        )
    return bits
