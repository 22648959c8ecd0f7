import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from msc_edge.marks import DASHES, SHAPES, mark


def drawn(shape) -> np.ndarray:
    """The shape around (50, 50) with a size of 20, as pixels: straight lines in the order of the path."""
    root = ElementTree.fromstring(mark(shape, 50, 50, colour="#000", size=20))
    image = np.zeros((100, 100), np.uint8)
    if root.tag == "circle":
        return cv2.circle(image, (50, 50), round(float(root.get("r", ""))), 255, -1)
    at, lines = np.zeros(2), []
    for command, numbers in re.findall(r"([Mlmhvz])([-\d. ]*)", root.get("d", "")):
        steps = np.array([float(number) for number in numbers.split()])
        if command == "M":
            at = steps
            lines.append([at])
        elif command == "m":
            at = at + steps
            lines.append([at])
        elif command in "hv":
            at = at + (np.array([steps[0], 0]) if command == "h" else np.array([0, steps[0]]))
            lines[-1].append(at)
        elif command == "l":
            for step in steps.reshape(-1, 2):
                at = at + step
                lines[-1].append(at)
    points = [np.rint(line).astype(np.int32) for line in lines]
    if root.get("fill") == "none":
        return cv2.polylines(image, points, False, 255, round(float(root.get("stroke-width", ""))))
    return cv2.fillPoly(image, points, 255)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_lies_around_its_point(shape):
    rows, columns = np.nonzero(drawn(shape))
    for places in (rows, columns):
        assert places.min() == pytest.approx(50 - 20, abs=8)
        assert places.max() == pytest.approx(50 + 20, abs=8)
        assert places.mean() == pytest.approx(50, abs=4)


def test_no_two_shapes_are_alike_and_no_two_dashes():
    for number, one in enumerate(SHAPES):
        for other in SHAPES[:number]:
            both = drawn(one) & drawn(other)
            assert both.sum() / (drawn(one) | drawn(other)).sum() < 0.85
    assert len(set(DASHES)) == len(DASHES)
