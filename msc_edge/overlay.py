"""Overlays: an image with its anomaly map in colour, and the outlines of its regions.

The colours have a fixed scale: the limit of the map has the same colour in every image of a kit, and a map below nine
tenths of the limit is not drawn. A good part therefore looks like itself. Ignored parts are dimmed.
"""

import cv2
import numpy as np

from msc_edge.anomaly_map import AnomalyMap
from msc_edge.drawing import Colour

_CLEAR = 0.9  # of the limit: up to there the image is not coloured
_FULL = 2.0  # times the limit: from there the colour stays the same
OPACITY = 0.6
_DIMMED = 0.4  # brightness of ignored parts
# From the smallest to the largest value that is drawn; yellow is the limit. Lightness falls from there on, so that the
# order can be seen without colour vision.
STOPS: tuple[tuple[float, Colour], ...] = (
    (_CLEAR, (255, 255, 150)),
    (1.0, (255, 221, 0)),
    (1.4, (240, 90, 0)),
    (_FULL, (120, 0, 60)),
)
"""Colours of a map, by its value in limits."""
_OUTLINE: tuple[Colour, Colour] = ((255, 255, 255), (20, 20, 20))  # seen on dark and on bright images


def overlay(image: np.ndarray, anomaly_map: AnomalyMap) -> np.ndarray:
    """An image with its map, uint8 (height, width, 3) RGB both.

    The image may be a resized copy of the one that was scored.
    """
    height, width = image.shape[:2]
    drawn = image.copy()
    if (ignored := anomaly_map.geometry.ignored_at_frame(height=height, width=width)) is not None:
        drawn[ignored] = (drawn[ignored] * _DIMMED).astype(np.uint8)
    if anomaly_map.peak <= _CLEAR * anomaly_map.limit:
        return drawn
    large = anomaly_map.at_frame(height=height, width=width)
    _colour(drawn, large / np.float32(anomaly_map.limit))
    outlines = _outlines(large > anomaly_map.limit, anomaly_map.least_area * _area_of_input_pixel(image, anomaly_map))
    thickness = max(1, round(min(height, width) / 300))
    cv2.drawContours(drawn, outlines, -1, _OUTLINE[1], thickness + 2, cv2.LINE_AA)
    cv2.drawContours(drawn, outlines, -1, _OUTLINE[0], thickness, cv2.LINE_AA)
    return drawn


def _colour(image: np.ndarray, relative: np.ndarray) -> None:
    """Colour an image by a map relative to its limit, in place: only the lines that the map reaches."""
    coloured = relative > _CLEAR
    rows, columns = (np.flatnonzero(coloured.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    places: np.ndarray = ((relative[box] - _CLEAR) * (255 / (_FULL - _CLEAR))).clip(0, 255).astype(np.uint8)
    values, colours = zip(*STOPS, strict=True)
    table = np.linspace(_CLEAR, _FULL, 256)
    lookup = np.stack([np.interp(table, values, channel) for channel in zip(*colours, strict=True)], axis=1)
    # Transparent at the lower end, so that no edge is seen where the colour begins.
    opacity = OPACITY * np.clip((table - _CLEAR) / (1 - _CLEAR), 0, 1)
    painted, through = (lookup * opacity[:, None]).astype(np.float32), (1 - opacity).astype(np.float32)
    seen = image[box] * through[places][..., None]
    seen += painted[places]
    image[box] = cv2.convertScaleAbs(seen)  # rounds


def _outlines(above: np.ndarray, least_area: float) -> list[np.ndarray]:
    """The outlines of the connected parts of a mask with at least this area, in its pixels."""
    found, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Pick's theorem: the outline runs through the centres of the pixels at the edge.
    return [each for each in found if cv2.contourArea(each) + len(each) / 2 + 1 >= least_area]


def _area_of_input_pixel(image: np.ndarray, anomaly_map: AnomalyMap) -> float:
    """Pixels of `image` for one pixel of the network's input."""
    at = anomaly_map.geometry
    down, across = at.scale
    return down * across * (image.shape[0] / at.frame_height) * (image.shape[1] / at.frame_width)
