"""OpenCV as a decoder: its limit of pixels, and its errors."""

import math
import os
import re

# OpenCV reads this limit once, when it is first imported, and refuses a larger image before it allocates memory: a PNG
# of 109 kB can declare 900 megapixels. If cv2 was imported before this module, the refusal follows the decoding.
MAX_MEGAPIXELS = 100
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_MEGAPIXELS * 1_000_000))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # this package reports failures itself, with the path

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from msc_edge.errors import UnreadableImageError  # noqa: E402
from msc_edge.formats import NO_MEMORY, damaged  # noqa: E402

# Avoid IMREAD_COLOR_RGB: for a colour TIFF with 16 bits it returns uninitialised memory (OpenCV 4.11 to 5.0). OpenCV
# reads EXIF in WebP in one of two forms only.
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def decode_by_opencv(data: np.ndarray) -> np.ndarray:
    """Decode a file, uint8 (n,), to RGB (height, width, 3), uint8 or uint16.

    The orientation of TIFF is applied, and that of EXIF is not.
    """
    try:
        image = cv2.imdecode(data, _FLAGS)
        if image is not None and image.dtype in (np.uint8, np.uint16):
            refuse_too_many_pixels(*image.shape[:2])
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE_PIXELS" in str(error):
            raise _too_many_pixels() from error
        if error.code == cv2.Error.StsNoMem:
            raise UnreadableImageError(NO_MEMORY) from error
        raise UnreadableImageError(f"the decoder refused it: {error.err}; save it as PNG") from error
    if image is None:
        raise damaged()
    raise UnreadableImageError(f"its pixels are {image.dtype}, and 8 or 16 bits a channel are read; save it as PNG")


def three_channels(image: np.ndarray) -> np.ndarray:
    """RGB (height, width, 3) from grey or RGB uint8 (height, width, 1 or 3)."""
    return image if image.shape[2] == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def refuse_too_many_pixels(height: int, width: int) -> None:
    """UnreadableImageError for an image above the limit."""
    # OpenCV has this limit for its own formats, unless cv2 was imported before this module. All must be alike.
    if height * width > pixel_limit():
        raise _too_many_pixels()


def pixel_limit() -> float:
    """The largest number of pixels of an image, from the environment variable; OpenCV accepts "400MB" too."""
    given = re.fullmatch(r"(\d+)(kb|mb|)", os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"].lower())
    return int(given[1]) << {"": 0, "kb": 10, "mb": 20}[given[2]] if given else math.inf


def _too_many_pixels() -> UnreadableImageError:
    return UnreadableImageError(
        f"larger than {pixel_limit() / 1e6:g} megapixels; shrink or tile it first, or raise the environment variable "
        "OPENCV_IO_MAX_IMAGE_PIXELS"
    )
