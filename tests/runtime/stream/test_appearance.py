"""Brightness, sharpness and position, measured on changed copies of a drawn part."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from msc_edge.runtime.stream.appearance import appearance_of, describe_change


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A disc on a noisy table, 640 x 480."""
    rng = np.random.default_rng(0)
    canvas = np.full((480, 640, 3), 90, np.uint8)
    cv2.circle(canvas, (300, 240), 120, (200, 180, 160), -1)
    cv2.rectangle(canvas, (260, 200), (330, 290), (40, 60, 80), -1)
    return np.clip(canvas + rng.normal(0, 2, canvas.shape), 0, 255).astype(np.uint8)


def moved(image: np.ndarray, right: float, down: float) -> np.ndarray:
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float64)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def change(before: np.ndarray, after: np.ndarray) -> str:
    return ", ".join(describe_change([appearance_of(before)] * 2, [appearance_of(after)] * 2))


def test_an_unchanged_image_has_not_changed(image: np.ndarray) -> None:
    grey = round(appearance_of(image).brightness)
    assert change(image, image) == (
        f"brightness {grey} to {grey} of 255, sharpness +0 %, position +0.0 % of the width, +0.0 % of the height"
    )


def test_a_darker_image_is_less_bright_and_as_sharp(image: np.ndarray) -> None:
    before, after = (appearance_of(each) for each in (image, (0.8 * image).astype(np.uint8)))
    assert after.brightness == pytest.approx(0.8 * before.brightness, rel=0.02)
    assert after.sharpness == pytest.approx(before.sharpness, rel=0.1)


def test_a_blurred_image_is_less_sharp_and_as_bright(image: np.ndarray) -> None:
    before, after = (appearance_of(each) for each in (image, cv2.GaussianBlur(image, (0, 0), 8)))
    assert after.brightness == pytest.approx(before.brightness, rel=0.02)
    assert after.sharpness < 0.7 * before.sharpness


@pytest.mark.parametrize(("right", "down"), [(32, 0), (-19, 24)])
def test_a_shift_is_found_in_per_cent_of_the_frame(image: np.ndarray, right: float, down: float) -> None:
    text = change(image, moved(image, right, down))
    horizontal, vertical = (float(part.split(" ")[0]) for part in text.split("position ")[1].split(", "))
    assert horizontal == pytest.approx(100 * right / 640, abs=0.5)
    assert vertical == pytest.approx(100 * down / 480, abs=0.5)


def test_without_a_common_picture_nothing_is_said_of_the_position(image: np.ndarray) -> None:
    noise = np.random.default_rng(1).integers(0, 256, image.shape, np.uint8)
    assert "position" not in change(image, noise)
    stored = replace(appearance_of(image), small=None)  # pictures are not kept over a restart
    assert "position" not in ", ".join(describe_change([stored], [appearance_of(image)]))


def test_any_size_of_frame_has_an_appearance() -> None:
    for shape in ((1, 1, 3), (2, 700, 3), (2048, 2448, 3)):
        found = appearance_of(np.full(shape, 77, np.uint8))
        assert (found.brightness, found.sharpness) == (77, 0)
