"""The outline of a ground-truth mask, as a path of SVG, which is sharp at every size."""

from dataclasses import dataclass

import cv2
import numpy as np

_SIDE = 512  # the page shows an image at less
_TOLERANCE = 0.5  # of the simplified outline, in pixels of that size


@dataclass(frozen=True)
class MaskOutline:
    """An outline in an image of `width` x `height` units."""

    path: str
    """SVG path data: a closed polygon around each region, and one in each hole."""
    width: int
    height: int


def mask_outline(mask: np.ndarray, *, height: int, width: int) -> MaskOutline:
    """The outline of a mask, bool (h, w), of an image of `height` x `width` pixels.

    It runs half a pixel outside of the region, so that a region of one pixel has one, too. The mask of a large image is
    shrunk first; no region disappears.
    """
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shrink = size[0] < mask.shape[1] or size[1] < mask.shape[0]
    resized = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_NEAREST)
    grown = cv2.dilate(
        cv2.copyMakeBorder((resized > 0).astype(np.uint8), 2, 2, 2, 2, cv2.BORDER_CONSTANT), np.ones((3, 3))
    )
    contours, _ = cv2.findContours(grown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons = (cv2.approxPolyDP(contour, _TOLERANCE, True)[:, 0] - 1.5 for contour in contours)
    path = "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in polygon) + "Z" for polygon in polygons)
    return MaskOutline(path, *size)
