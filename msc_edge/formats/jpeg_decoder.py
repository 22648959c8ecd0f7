"""JPEG files, decoded by libjpeg-turbo, which reports damaged data.

OpenCV uses the same library and gives the same pixels, but it prints reports of damage and returns what could be
decoded: an image whose lower half is grey, or shifted.
"""

import re

import numpy as np
import simplejpeg

from msc_edge.errors import UnreadableImageError
from msc_edge.formats import NO_MEMORY, damaged
from msc_edge.formats.jpeg import JpegHeader, is_complete, jpeg_header, restart_intervals, without_metadata
from msc_edge.formats.opencv import refuse_too_many_pixels
from msc_edge.formats.orientation import turned

# Decoding a progressive file takes about a millisecond for each megapixel and scan, however short the scan. Cameras and
# editors write about ten scans.
_MOST_PIXELS_OF_SCANS = 4_000_000_000
_SCAN = re.compile(rb"\xff\xda")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd[0-79]")
# Bytes that common cameras leave behind the data of an interval, or align the whole data with. Damaged data that go on
# to decode leave more: an MCU of one colour has five bytes.
_MOST_LEFT_OVER, _MOST_IN_INTERVAL = 4, 16


def decode_jpeg(data: np.ndarray, header: JpegHeader, *, keep: int | None) -> np.ndarray:
    """Decode a JPEG file, uint8 (n,), to RGB uint8 (height, width, 3), or grey (height, width, 1), turned by its EXIF.

    With `keep`, at 1/2, 1/4 or 1/8 of its size, as long as the shorter side keeps that number of pixels: the decoder
    then computes fewer pixels from each block (Independent JPEG Group, libjpeg.txt, "scale_num, scale_denom").

    UnreadableImageError for damaged data: a part is missing, or cannot be decoded. Errors of metadata that cost no
    pixel, and a few bytes that are left over, are accepted.
    """
    scans = len(_SCAN.findall(data.data))
    if scans * header.height * header.width > _MOST_PIXELS_OF_SCANS:
        raise UnreadableImageError(f"it is a JPEG of {scans} scans, which takes too long to decode; save it as PNG")
    if not is_complete(data.data):
        raise damaged("scans of this progressive JPEG are missing")
    factor = header.reduction(keep) if keep else 1
    try:
        pixels = _accepted(data.data, header, factor)
    except (ValueError, IndexError) as error:  # IndexError: a segment is shorter than its kind
        reason = "its subsampling of colours is not supported" if "subsampling" in str(error) else str(error)
        raise damaged(reason) from error
    except MemoryError as error:
        raise UnreadableImageError(NO_MEMORY) from error
    return turned(pixels, header.orientation)


def check_jpeg(data: bytes, *, height: int, width: int) -> None:
    """UnreadableImageError where a JPEG file within another file is damaged, as for `decode_jpeg`, or too small."""
    view = memoryview(data)
    header = jpeg_header(view)
    if header is None or header.height < height or header.width < width:
        raise damaged("a JPEG within it is missing, or smaller than its place")
    refuse_too_many_pixels(header.height, header.width)
    decode_jpeg(np.frombuffer(view, np.uint8), header, keep=None)


def _accepted(data: memoryview, header: JpegHeader, factor: int) -> np.ndarray:
    try:
        return _decoded(data, header, factor)
    except ValueError:  # the decoder reports one fault and stops; perhaps it is one of the metadata
        clean = without_metadata(data)
    try:
        return _decoded(clean, header, factor)
    except ValueError as error:
        intervals = restart_intervals(memoryview(clean)) if _left_over(error) else None
        if not _left_over(error) or (intervals is None and _left_over(error) > _MOST_LEFT_OVER):
            raise
    for each in intervals or ():  # the fault that was reported hides those behind it
        _check_interval(each)
    return _decoded(clean, header, factor, strict=False)


def _left_over(error: ValueError) -> int:
    """Number of bytes left over at the end of the data, or before a restart marker; 0 for another fault."""
    found = _LEFT_OVER.search(str(error))
    return int(found[1]) if found else 0


def _check_interval(interval: bytes) -> None:
    """ValueError where a restart interval, as a file of its own, is damaged."""
    try:
        simplejpeg.decode_jpeg(interval, "GRAY")
    except ValueError as error:
        if not 0 < _left_over(error) <= _MOST_IN_INTERVAL:
            raise


def _decoded(data: bytes | memoryview, header: JpegHeader, factor: int, *, strict: bool = True) -> np.ndarray:
    """As `decode_jpeg`, not turned. ValueError with the decoder's reason."""
    pixels = simplejpeg.decode_jpeg(
        data,
        {1: "GRAY", 4: "CMYK"}.get(header.channels, "RGB"),
        min_height=-(-header.height // factor),
        min_width=-(-header.width // factor),
        strict=strict,
    )
    if header.channels == 4:  # Adobe's inverted CMYK, as OpenCV converts it
        ink = 255 - pixels[..., :3].astype(np.uint16)
        black = pixels[..., 3:].astype(np.uint16)
        return (black - (ink * black >> 8)).astype(np.uint8)
    return pixels
