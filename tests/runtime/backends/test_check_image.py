import numpy as np
import pytest

from msc_edge.preprocessing import Region, preset
from msc_edge.runtime.backends.check_image import check_image


def test_the_pixels_are_those_of_the_kit_format():
    image = check_image(preset("whole-frame"))
    assert (image.shape, image.dtype) == ((96, 128, 3), np.uint8)
    for y, x in ((0, 0), (5, 7), (95, 127), (40, 100)):
        assert image[y, x].tolist() == [(2 * x + y) % 256, x * y // 16 % 256, 255 if (x // 8 + y // 8) % 2 else 0]


@pytest.mark.parametrize("times", [1, 8])
def test_it_is_as_large_as_the_region_of_interest_needs(times):
    region = Region(x=100, y=50, width=300, height=200)
    assert check_image(preset("whole-frame", region=region), times=times).shape == (250, 400, 3)
    assert check_image(preset("whole-frame"), times=times).shape == (96 * times, 128 * times, 3)
