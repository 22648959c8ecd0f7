import base64

import numpy as np

from msc_edge.anomaly_map import AnomalyMap, MapGeometry
from msc_edge.images import decode_image
from msc_edge.overlay import overlay
from msc_edge.preprocessing import View
from msc_edge.runtime.tools.report.legend import heatmap_scale, heatmap_scale_url


def colour_at(value: float) -> np.ndarray:
    """The colour of a map that has this value everywhere, in limits, over grey: away from its outline."""
    geometry = MapGeometry(40, 40, View(0, 0, 40, 40), input_height=40, input_width=40, stride=1)
    grid = np.full((1, 1), value, np.float32)
    return overlay(np.full((40, 40, 3), 128, np.uint8), AnomalyMap(grid, geometry, limit=1.0, least_area=1))[20, 20]


def test_each_value_has_its_place_from_0_to_twice_the_limit():
    scale = heatmap_scale(width=400, height=30)
    assert scale.shape == (30, 400, 3)
    for value in (0.0, 0.5, 0.9, 1.2, 1.6, 1.9):
        place = round(value / 2 * 400)
        assert np.abs(scale[15, place].astype(int) - colour_at(value + 0.5 / 200)).max() <= 2


def test_the_image_has_no_colour_far_below_the_limit():
    assert (heatmap_scale(width=400, height=30)[:, :140] == 128).all()


def test_the_page_has_it_as_a_png():
    head, _, data = heatmap_scale_url().partition(",")
    assert head == "data:image/png;base64"
    decoded = decode_image(np.frombuffer(base64.b64decode(data), np.uint8))
    assert np.array_equal(decoded, heatmap_scale(width=240, height=20))
