"""Shapes as signed distances, and light on a height map.

A signed distance is the distance of each point to the edge of a shape, negative inside. All arrays are float32 of shape
(side, side), in the coordinates of the part, where the image spans [-1, 1].
"""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]


def circle(x: Field, y: Field, radius: float) -> Field:
    """Signed distance to a circle around the origin."""
    return np.hypot(x, y) - np.float32(radius)


def box(x: Field, y: Field, width: float, height: float, corner: float = 0.0) -> Field:
    """Signed distance to a box around the origin with half sides `width` and `height` and rounded corners."""
    over_x, over_y = np.abs(x) - (width - corner), np.abs(y) - (height - corner)
    outside = np.hypot(np.maximum(over_x, 0), np.maximum(over_y, 0))
    return (outside + np.minimum(np.maximum(over_x, over_y), 0) - corner).astype(np.float32)


def path(x: Field, y: Field, points: NDArray[np.floating]) -> Field:
    """Distance to a line through `points`, (n, 2)."""
    nearest = np.full(x.shape, np.inf, np.float32)
    for (x0, y0), (x1, y1) in pairwise(points):
        along_x, along_y = x1 - x0, y1 - y0
        share = ((x - x0) * along_x + (y - y0) * along_y) / (along_x**2 + along_y**2 + 1e-9)
        share = np.clip(share, 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - x0 - share * along_x, y - y0 - share * along_y))
    return nearest.astype(np.float32)


def cover(distance: Field) -> Field:
    """The share of each pixel that a shape covers, in [0, 1]: its edge is one pixel wide."""
    pixel = 2 / distance.shape[0]
    return np.clip(0.5 - distance / pixel, 0, 1).astype(np.float32)


def bevel(distance: Field, width: float) -> Field:
    """A height that rises from 0 at the edge of a shape to 1 at `width` inside it."""
    rise = np.clip(-distance / width, 0, 1)
    return (rise * rise * (3 - 2 * rise)).astype(np.float32)


def noise(rng: np.random.Generator, side: int, grain: tuple[float, float]) -> Field:
    """Smooth noise with mean 0 and standard deviation 1, in grains of `grain` = (height, width) pixels."""
    rows, columns = (max(2, round(side / size)) for size in grain)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return (smooth - smooth.mean()) / (smooth.std() + 1e-6)


def lit(height: Field, light: tuple[float, float], *, shine: float) -> Field:
    """Brightness of a surface under a distant light from direction `light` = (x, y): about 1 where it is flat.

    Lambert's law, with a highlight of strength `shine`.
    """
    slope_y, slope_x = np.gradient(height)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    x, y = light
    toward = (x * -slope_x + y * -slope_y + 1) / (length * np.sqrt(x * x + y * y + 1))
    return (0.35 + 0.65 * toward + shine * np.clip(toward, 0, 1) ** 24).astype(np.float32)
