from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.drawing import (
    THUMBNAIL_SIDE,
    VERDICT_COLOURS,
    draw_text,
    encode_image,
    fit,
    printable,
    square,
    text_width,
    thumbnail,
)
from msc_edge.images import decode_image


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green grows downwards, blue is constant."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([red, green, np.full_like(red, 90)], axis=2).astype(np.uint8)


def decoded(data: bytes) -> np.ndarray:
    return decode_image(np.frombuffer(data, np.uint8))


# --- fit -------------------------------------------------------------------------------------------------------------

SIZES = [
    ((1080, 1920), (144, 256)),
    ((1920, 1080), (256, 144)),
    ((256, 256), (256, 256)),
    ((257, 100), (256, 100)),
    ((40, 60), (40, 60)),  # not enlarged
    ((1, 1), (1, 1)),
    ((1, 5000), (1, 256)),
]


@pytest.mark.parametrize(("size", "expected"), SIZES)
def test_an_image_is_shrunk_in_proportion_and_not_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit(ramp(*size), width=256, height=256).shape == (*expected, 3)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_the_result_fits_and_keeps_its_proportions(rows: int, columns: int, width: int, height: int) -> None:
    shape = fit(np.zeros((rows, columns, 3), np.uint8), width=width, height=height).shape
    assert shape[0] <= height
    assert shape[1] <= width
    scale = min(1, width / columns, height / rows)
    assert abs(shape[0] - rows * scale) < 1
    assert abs(shape[1] - columns * scale) < 1


@pytest.mark.parametrize("enlarge", ["no", "pixels", "smooth"])
@pytest.mark.parametrize("size", [(600, 700), (30, 40)])
def test_the_mean_brightness_stays(size: tuple[int, int], enlarge: Literal["no", "pixels", "smooth"]) -> None:
    image = ramp(*size)
    shown = fit(image, width=100, height=100, enlarge=enlarge)
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=1)


def test_fine_patterns_are_averaged_and_not_sampled() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (fit(stripes, width=256, height=256) == 100).all()


@pytest.mark.parametrize(
    ("size", "factor"), [((10, 10), 10), ((10, 30), 3), ((45, 45), 2), ((51, 51), 1), ((99, 99), 1)]
)
def test_enlarged_pixels_are_squares_of_a_whole_number_of_pixels(size: tuple[int, int], factor: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    shown = fit(image, width=100, height=100, enlarge="pixels")
    np.testing.assert_array_equal(shown, image.repeat(factor, axis=0).repeat(factor, axis=1))


def test_smooth_enlargement_fills_the_space() -> None:
    assert fit(ramp(10, 30), width=100, height=100, enlarge="smooth").shape == (33, 100, 3)


def test_the_result_is_a_copy() -> None:
    image = ramp(20, 20)
    fit(image, width=100, height=100)[:] = 0
    np.testing.assert_array_equal(image, ramp(20, 20))


# --- encoding --------------------------------------------------------------------------------------------------------


def test_png_gives_back_every_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(encode_image(image, ".png")), image)


@pytest.mark.parametrize(("quality", "difference"), [(95, 2), (85, 3), (30, 12)])
def test_jpeg_gives_back_nearly_the_same_colours(quality: int, difference: float) -> None:
    image = ramp(200, 300)
    found = decoded(encode_image(image, ".jpg", quality=quality))
    assert np.abs(found.astype(int) - image).mean() < difference


def test_a_lower_quality_gives_a_smaller_file() -> None:
    sizes = [len(encode_image(ramp(200, 300), ".jpg", quality=quality)) for quality in (95, 60, 20)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("shape", "suffix"), [((0, 5, 3), ".png"), ((0, 5, 3), ".jpg"), ((1, 70_000, 3), ".jpg")])
def test_an_image_that_cannot_be_encoded_is_named_by_its_size(
    shape: tuple[int, ...], suffix: Literal[".jpg", ".png"]
) -> None:
    with pytest.raises(ValueError, match=f"an image of {shape[1]}x{shape[0]} pixels cannot be encoded as {suffix}"):
        encode_image(np.zeros(shape, np.uint8), suffix)


@pytest.mark.parametrize(("size", "expected"), SIZES)
def test_the_longer_side_of_a_thumbnail_has_at_most_256_pixels(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert THUMBNAIL_SIDE == 256
    assert decoded(thumbnail(ramp(*size))).shape == (*expected, 3)


def test_a_thumbnail_is_a_jpeg_with_the_colours_of_the_image() -> None:
    data = thumbnail(ramp(512, 512))
    assert data.startswith(b"\xff\xd8")
    assert np.abs(decoded(data).astype(int) - ramp(256, 256)).mean() < 3
    assert decoded(thumbnail(ramp(512, 512), side=64)).shape == (64, 64, 3)


# --- text and colours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stain/017.png 0.25", "stain/017.png 0.25"),
        ("größe 日本 🙂", "gr??e ?? ?"),
        ("a\nb\tc\x1b[31m", "a?b?c?[31m"),
        ("\udcff.png", "?.png"),
        ("", ""),
    ],
)
def test_text_is_reduced_to_printable_ascii(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_text_is_drawn_in_its_colour_and_is_as_wide_as_measured() -> None:
    image = np.zeros((40, 300, 3), np.uint8)
    draw_text(image, "reject 0.2514", left=10, baseline=25, scale=0.5, colour=(211, 47, 47))
    columns = np.flatnonzero(image.any(axis=(0, 2)))
    assert columns[0] >= 9
    assert abs(columns[-1] - columns[0] + 1 - text_width("reject 0.2514", scale=0.5)) <= 4
    assert (image == (211, 47, 47)).all(axis=2).any()
    assert image[..., 0].sum() > 3 * image[..., 2].sum()  # RGB


def test_each_verdict_has_a_colour_of_its_own() -> None:
    assert set(VERDICT_COLOURS) == {"normal", "warn", "reject"}
    hues = [cv2.cvtColor(np.uint8([[colour]]), cv2.COLOR_RGB2HSV)[0, 0, 0] for colour in VERDICT_COLOURS.values()]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert len(set(hues)) == 3


@pytest.mark.parametrize("size", [(4, 8), (8, 4), (8, 8), (90, 30)])
def test_a_square_shows_the_whole_image_in_its_middle(size):
    found = square(np.full((*size, 3), 9, np.uint8), side=60, background=225)
    assert found.shape == (60, 60, 3)
    inside = found[..., 0] == 9
    assert set(np.unique(found)) <= {9, 225}
    assert inside.sum() == pytest.approx(3600 * min(size) / max(size), rel=0.05)
    assert np.array_equal(inside, inside[::-1, ::-1])
