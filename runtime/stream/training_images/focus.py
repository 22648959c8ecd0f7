"""Focus: how sharp the edges of a frame are, compared with the sharpest frames of the same camera.

At an edge, the gradient after a narrow Gaussian blur is compared with that after a wide one (Zhuo & Sim 2011, "Defocus
map estimation from a single image"). The ratio depends on the width of the edge only: not on its contrast, and hardly
on noise, as only the strongest edges of the frame count. Of these, the sharpest tenth counts: shadows are soft in any
focus. Horizontal and vertical gradients are measured apart, because motion blurs one of them.
"""

from collections import deque

import cv2
import numpy as np

NARROW, WIDE = 1.0, 3.0  # standard deviations of the blurs, in pixels
BLURRED_BELOW = 0.7  # of the sharpness of the sharpest frames
_STEP = WIDE / NARROW  # the ratio of a perfect edge; lines and noise have more
_STRONG = 0.02  # share of the pixels: the strongest edges
_SHARP = 0.9  # quantile: of the strong edges in a frame, and of the frames
_LEAST_GRADIENT = 4  # of the wide blur by Sobel's operator: half a grey level per pixel
_LEAST_EDGES = 50  # pixels
_REMEMBERED = 500  # frames
_STRIDE = 4  # every fourth pixel of every fourth row tells which gradients are strong

Sharpness = tuple[float | None, float | None]
"""Ratio of the gradients at the edges, from 0 to 3, horizontally and vertically; None where there are no edges."""


def sharpness(image: np.ndarray) -> Sharpness:
    """The sharpness of an image, uint8 (height, width, 3) RGB."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    narrow, wide = (cv2.GaussianBlur(grey, (0, 0), deviation) for deviation in (NARROW, WIDE))
    return _ratio(narrow, wide, 1, 0), _ratio(narrow, wide, 0, 1)


def _ratio(narrow: np.ndarray, wide: np.ndarray, dx: int, dy: int) -> float | None:
    gradients = np.abs(cv2.Sobel(wide, cv2.CV_16S, dx, dy))
    strong = np.quantile(gradients[::_STRIDE, ::_STRIDE], 1 - _STRONG)
    edges = gradients >= max(strong, _LEAST_GRADIENT)
    if np.count_nonzero(edges) < _LEAST_EDGES:
        return None
    ratios = np.abs(cv2.Sobel(narrow, cv2.CV_16S, dx, dy)[edges]) / gradients[edges]
    return min(float(np.quantile(ratios, _SHARP)), _STEP)


class FocusCheck:
    """Compares frames with the sharpest ones of the same source."""

    def __init__(self) -> None:
        self._known: tuple[deque[float], deque[float]] = (deque(maxlen=_REMEMBERED), deque(maxlen=_REMEMBERED))

    def observe(self, measured: Sharpness) -> None:
        """Take a frame into the comparison, whether it is kept or not."""
        for known, value in zip(self._known, measured, strict=True):
            if value is not None:
                known.append(value)

    def share(self, measured: Sharpness) -> float:
        """Sharpness of a frame as a share of that of the sharpest ones; 1 where it has no edges to judge by."""
        shares = [
            value / float(np.quantile(known, _SHARP))
            for known, value in zip(self._known, measured, strict=True)
            if value is not None and known
        ]
        return min(shares, default=1.0)
