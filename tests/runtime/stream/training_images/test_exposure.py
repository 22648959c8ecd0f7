"""Frames that are too dark or too bright, and light that only looks unusual."""

from collections.abc import Callable

import numpy as np
import pytest

from msc_edge.runtime.stream.training_images.exposure import exposure_fault


def lit(image: np.ndarray, gain: float) -> np.ndarray:
    return (image * gain).clip(0, 255).astype(np.uint8)


def backlight(image: np.ndarray) -> np.ndarray:
    return np.where(image.sum(axis=2, keepdims=True) > 300, np.uint8(255), np.uint8(20)).repeat(3, axis=2)


def dark_field(image: np.ndarray) -> np.ndarray:
    return np.where(image.max(axis=2, keepdims=True) > 180, image, np.uint8(0))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda image: image, None),
        (lambda image: lit(image, 0.5), None),
        (lambda image: lit(image, 1.5), None),
        (dark_field, None),
        (lambda image: lit(image, 0.1), "dark"),
        (lambda image: image * 0, "dark"),
        (lambda image: lit(image, 3.0), "bright"),
        (backlight, "bright"),
        (lambda image: image * 0 + 255, "bright"),
    ],
)
def test_exposure(change: Callable[[np.ndarray], np.ndarray], fault: str | None, scene: Callable) -> None:
    assert exposure_fault(change(scene(1))) == fault


def test_one_saturated_channel_is_enough() -> None:
    image = np.full((100, 100, 3), 90, np.uint8)
    image[..., 0] = 255
    assert exposure_fault(image) == "bright"
