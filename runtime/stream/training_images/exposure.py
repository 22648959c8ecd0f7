"""Exposure: frames that are too dark or too bright to show a part.

Both limits are low on purpose: a dark background, as in dark-field lighting, and small highlights are no fault.
"""

from typing import Literal

import cv2
import numpy as np

DARK_BELOW = 40  # grey level that two of a hundred pixels must reach; most frames at half the light do
BRIGHT_ABOVE = 0.5  # share of pixels with a saturated channel
_SATURATED = 254
_LIGHT = 0.98  # quantile
_STRIDE = 4  # every fourth pixel of every fourth row is enough


def exposure_fault(image: np.ndarray) -> Literal["dark", "bright"] | None:
    """What is wrong with the exposure of an image, uint8 (height, width, 3) RGB."""
    sample = np.ascontiguousarray(image[::_STRIDE, ::_STRIDE])
    if np.quantile(cv2.cvtColor(sample, cv2.COLOR_RGB2GRAY), _LIGHT) < DARK_BELOW:
        return "dark"
    return "bright" if np.mean(sample.max(axis=2) >= _SATURATED) > BRIGHT_ABOVE else None
