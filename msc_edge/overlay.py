"""Overlays: an image with its anomaly map in colour, and the outlines of its regions.

The colours have a fixed scale: the limit of the map has the same colour in every image of a kit, and a map below three
quarters of the limit is not drawn. A good part therefore looks like itself.
"""

import cv2
import numpy as np

from msc_edge.anomaly_map import AnomalyMap
from msc_edge.drawing import Colour

_CLEAR = 0.75  # of the limit: up to there the image is not coloured
_FULL = 2.0  # times the limit: from there the colour stays the same
_OPACITY = 0.6
# From the smallest to the largest value that is drawn; yellow is the limit. Lightness falls from there on, so that the
# order can be seen without colour vision.
_STOPS: tuple[tuple[float, Colour], ...] = (
    (_CLEAR, (255, 255, 150)),
    (1.0, (255, 221, 0)),
    (1.4, (240, 90, 0)),
    (_FULL, (120, 0, 60)),
)
_OUTLINE: tuple[Colour, Colour] = ((255, 255, 255), (20, 20, 20))  # seen on dark and on bright images


def overlay(image: np.ndarray, anomaly_map: AnomalyMap) -> np.ndarray:
    """An image with its map, uint8 (height, width, 3) RGB both.

    The image may be a resized copy of the one that was scored.
    """
    height, width = image.shape[:2]
    relative = anomaly_map.at_frame(height=height, width=width) / anomaly_map.limit
    drawn = _coloured(image, relative) if relative.max() > _CLEAR else image.copy()
    outlines, _ = cv2.findContours((relative > 1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(min(height, width) / 300))
    cv2.drawContours(drawn, outlines, -1, _OUTLINE[1], thickness + 2, cv2.LINE_AA)
    cv2.drawContours(drawn, outlines, -1, _OUTLINE[0], thickness, cv2.LINE_AA)
    return drawn


def _coloured(image: np.ndarray, relative: np.ndarray) -> np.ndarray:
    values, colours = zip(*_STOPS, strict=True)
    table = np.linspace(_CLEAR, _FULL, 256)
    lookup = np.stack([np.interp(table, values, channel) for channel in zip(*colours, strict=True)], axis=1)
    places = ((relative - _CLEAR) / (_FULL - _CLEAR) * 255).clip(0, 255).astype(np.uint8)
    # Transparent at the lower end, so that no edge is seen where the colour begins.
    opacity = (_OPACITY * np.clip((relative - _CLEAR) / (1 - _CLEAR), 0, 1))[..., None].astype(np.float32)
    return (image * (1 - opacity) + lookup.astype(np.float32)[places] * opacity).round().astype(np.uint8)
