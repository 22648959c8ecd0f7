import re

import cv2
import numpy as np
import pytest

from msc_edge.runtime.tools.report.mask_outline import MaskOutline, mask_outline


def polygons(outline: MaskOutline) -> list[np.ndarray]:
    """The closed polygons of a path, float64 (points, 2): x and y."""
    closed = re.fullmatch(r"(?:M([-.\d L]+)Z)*", outline.path)
    assert closed
    found = re.findall(r"M([^Z]+)Z", outline.path)
    return [np.array([[float(value) for value in point.split()] for point in each.split("L")]) for each in found]


def filled(outline: MaskOutline) -> np.ndarray:
    """The pixels whose centres the outline encloses, bool (height, width); holes are open."""
    image = np.zeros((outline.height, outline.width), np.uint8)
    for y in range(outline.height):
        for x in range(outline.width):
            inside = [
                cv2.pointPolygonTest(each.astype(np.float32), (x + 0.5, y + 0.5), False) > 0
                for each in polygons(outline)
            ]
            image[y, x] = sum(inside) % 2
    return image > 0


def drawn(*, height: int = 48, width: int = 64) -> np.ndarray:
    return np.zeros((height, width), np.uint8)


MASKS = {
    "a circle": cv2.circle(drawn(), (40, 20), 9, 1, -1),
    "a ring": cv2.circle(drawn(), (30, 24), 15, 1, 5),
    "two regions": cv2.rectangle(cv2.circle(drawn(), (10, 10), 6, 1, -1), (40, 30), (50, 40), 1, -1),
    "a crack": cv2.line(drawn(), (5, 5), (60, 40), 1, 1),
    "one pixel": cv2.circle(drawn(), (33, 7), 0, 1, -1),
    "at the border": cv2.rectangle(drawn(), (0, 0), (20, 47), 1, -1),
    "the whole image": drawn() + 1,
}


@pytest.mark.parametrize("name", MASKS)
def test_it_encloses_the_mask_and_at_most_one_pixel_more(name):
    mask = MASKS[name] > 0
    outline = mask_outline(mask, height=48, width=64)
    assert (outline.height, outline.width) == (48, 64)
    found = filled(outline)
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0
    assert (found >= mask).all()
    assert (found <= grown).all()


def test_each_region_and_each_hole_has_a_polygon():
    assert len(polygons(mask_outline(MASKS["two regions"] > 0, height=48, width=64))) == 2
    assert len(polygons(mask_outline(MASKS["a ring"] > 0, height=48, width=64))) == 2


def test_a_large_mask_is_shrunk_and_its_smallest_region_stays():
    mask = np.zeros((3000, 4000), dtype=bool)
    mask[2000, 1000] = True
    mask[100:900, 3000:3800] = True
    outline = mask_outline(mask, height=3000, width=4000)
    assert (outline.width, outline.height) == (512, 384)
    small, large = sorted(polygons(outline), key=lambda each: float(np.ptp(each)))
    assert small.mean(axis=0) == pytest.approx((1000 * 0.128, 2000 * 0.128), abs=1.5)
    assert large.mean(axis=0) == pytest.approx((3400 * 0.128, 500 * 0.128), abs=1.5)
    assert len(outline.path) < 500


def test_a_mask_of_another_size_lies_on_the_same_part_of_the_image():
    small = np.zeros((10, 10), dtype=bool)
    small[2:4, 6:9] = True
    (found,) = polygons(mask_outline(small, height=100, width=200))
    assert (found.min(axis=0), found.max(axis=0)) == (pytest.approx((120, 20), abs=1), pytest.approx((180, 40), abs=1))


def test_a_black_mask_has_no_outline():
    assert mask_outline(drawn() > 0, height=48, width=64).path == ""
