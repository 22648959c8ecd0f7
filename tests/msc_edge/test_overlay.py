import numpy as np
import pytest

from msc_edge.anomaly_map import AnomalyMap, MapGeometry
from msc_edge.overlay import overlay
from msc_edge.preprocessing import preset

GREY = np.full((96, 128, 3), 120, np.uint8)


def map_of(value: float, *, background: float = 0.2, limit: float = 1.0) -> AnomalyMap:
    grid = np.full((8, 8), background, np.float32)
    grid[2, 5] = value
    geometry = MapGeometry.of(preset("whole-frame", image_size=64), height=96, width=128, stride=8)
    return AnomalyMap(grid, geometry, limit=limit, least_area=1)


def test_a_good_part_looks_like_itself() -> None:
    assert np.array_equal(overlay(GREY, map_of(0.89)), GREY)


def test_an_overlay_is_a_copy() -> None:
    before = GREY.copy()
    overlay(GREY, map_of(3.0))
    assert np.array_equal(GREY, before)


def test_colours_do_not_depend_on_the_other_values_of_the_image() -> None:
    # A scale from the smallest to the largest value would colour these two differently.
    alone, beside = overlay(GREY, map_of(0.95)), map_of(0.95)
    beside.grid[6, 1] = 5.0
    assert np.array_equal(alone[:40], overlay(GREY, beside)[:40])


def test_the_same_share_of_the_limit_has_the_same_colour() -> None:
    assert np.array_equal(overlay(GREY, map_of(1.5)), overlay(GREY, map_of(6.0, background=0.8, limit=4.0)))


@pytest.mark.parametrize("grey", [0, 255])
def test_a_region_is_outlined_on_dark_and_on_bright_images(grey: int) -> None:
    image = np.full_like(GREY, grey)
    drawn = overlay(image, map_of(2.0))
    # Position (2, 5) is pixel (16, 40) of the input, so (25, 81) of the frame. The outline is around it.
    row = drawn[25, 60:100].astype(int)
    assert row.max() > 200
    assert row.min() < 60


def test_lightness_falls_above_the_limit() -> None:
    lightness = [overlay(GREY, map_of(value, background=value))[48, 64].astype(int).sum() for value in (1.0, 1.4, 2.0)]
    assert lightness == sorted(lightness, reverse=True)


def test_a_small_copy_of_the_image_has_a_small_copy_of_the_overlay() -> None:
    small = overlay(GREY[::2, ::2], map_of(2.0))
    assert small.shape == (48, 64, 3)
    changed = np.argwhere((small != 120).any(axis=2))
    assert np.abs(changed.mean(axis=0) - (12, 40)).max() < 2
