import base64
import zlib

import numpy as np
import pytest
from pydantic import ValidationError

from msc_edge.ignore_mask import IgnoreMask, ignored_pixels
from msc_edge.preprocessing import Preprocessing, Tiles, preset


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("shape", [(1, 2), (7, 13), (224, 224), (64, 1344)])
def test_a_mask_comes_back_from_its_text(shape: tuple[int, int]) -> None:
    ignored = np.random.default_rng(0).random(shape) < 0.3
    ignored.flat[0] = False
    mask = IgnoreMask.of(ignored)
    np.testing.assert_array_equal(mask.ignored, ignored)
    np.testing.assert_array_equal(IgnoreMask.model_validate_json(mask.model_dump_json()).ignored, ignored)


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ("?", "not readable"),
        ("AAAA", "not readable"),
        (text_of(zlib.compress(bytes(7))), "not 8x8 pixels"),
        (text_of(zlib.compress(bytes(9))), "not 8x8 pixels"),
        (text_of(zlib.compress(bytes(1 << 26))), "not 8x8 pixels"),  # never inflated as a whole
        (text_of(zlib.compress(b"\xff" * 8)), "ignores every pixel"),
    ],
)
def test_bits_that_are_no_mask_are_refused(bits: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IgnoreMask(height=8, width=8, bits=bits)


def test_a_pixel_is_ignored_if_more_than_half_of_it_is_white() -> None:
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[:4, :3] = 255
    expected = [[True, True, False, False], [True, True, False, False], *[[False] * 4] * 2]
    half_white = np.zeros((8, 8, 3), np.uint8)
    half_white[:4, :4] = 255
    np.testing.assert_array_equal(ignored_pixels(half_white, height=4, width=4), expected)
    expected[0][1] = expected[1][1] = False  # exactly half
    np.testing.assert_array_equal(ignored_pixels(mask, height=4, width=4), expected)
    assert ignored_pixels(half_white, height=16, width=16)[:8, :8].all()


def test_a_mask_must_have_the_size_of_the_canvas() -> None:
    spec = preset("whole-frame", image_size=96, tiles=Tiles.parse("1x2", image_size=96))
    assert spec.canvas == (96, 160)
    for shape, fits in (((96, 160), True), ((96, 96), False)):
        document = spec.model_dump() | {"ignore": IgnoreMask.of(np.eye(*shape) > 0).model_dump()}
        if fits:
            Preprocessing.model_validate(document)
        else:
            with pytest.raises(ValidationError, match="not of the size"):
                Preprocessing.model_validate(document)
