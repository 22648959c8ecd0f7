"""The legend of heatmaps: their colours, drawn by the function that draws the heatmaps."""

import base64

import numpy as np

from msc_edge.anomaly_map import AnomalyMap, MapGeometry
from msc_edge.drawing import encode_image
from msc_edge.overlay import overlay
from msc_edge.preprocessing import View

_GREY = 128


def heatmap_scale(*, width: int, height: int) -> np.ndarray:
    """The colours of a heatmap over grey, uint8 (height, width, 3), RGB.

    The value is 0 at the left end, the limit of the map in the middle, and twice the limit at the right end. The values
    above the limit have the outline of a region.
    """
    values = ((np.arange(width) + 0.5) / width * 2).astype(np.float32)[None]
    geometry = MapGeometry(height, width, View(0, 0, width, height), input_height=height, input_width=width, stride=1)
    return overlay(np.full((height, width, 3), _GREY, np.uint8), AnomalyMap(values, geometry, limit=1.0, least_area=1))


def heatmap_scale_url() -> str:
    """`heatmap_scale` as a data: URL of a PNG."""
    data = encode_image(heatmap_scale(width=240, height=20), ".png")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
