"""The sharpness of edges against its closed form, and which frames count as blurred."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from msc_edge.runtime.stream.training_images.focus import BLURRED_BELOW, NARROW, WIDE, FocusCheck, sharpness


def edge(blur: float, *, contrast: int = 100, low: int = 60) -> np.ndarray:
    """A vertical edge, blurred like a step that a Gaussian of this standard deviation has passed."""
    columns = (np.arange(200) - 99.5) / (blur * math.sqrt(2))
    row = low + contrast * 0.5 * (1 + np.array([math.erf(each) for each in columns]))
    return np.repeat(np.broadcast_to(row.round().astype(np.uint8), (200, 200))[..., None], 3, axis=2)


@pytest.mark.parametrize("contrast", [100, 180])
@pytest.mark.parametrize("blur", [1.0, 1.5, 2.0, 3.0])
def test_the_sharpness_of_an_edge_has_a_closed_form(blur: float, contrast: int) -> None:
    """The gradient of a blurred step is a Gaussian, whose height is inversely proportional to its width."""
    expected = math.sqrt((blur**2 + WIDE**2) / (blur**2 + NARROW**2))
    horizontal, vertical = sharpness(edge(blur, contrast=contrast))
    assert horizontal == pytest.approx(expected, rel=0.12)  # pixels are whole numbers
    assert vertical is None


def test_noise_and_light_hardly_change_it(scene: Callable, noisy: Callable) -> None:
    clean = sharpness(scene(1))
    for other in (noisy(scene(1), 6, 0), scene(1) // 2, noisy(scene(1) // 2, 4, 1)):
        assert sharpness(other) == pytest.approx(clean, rel=0.15)


def check_of(scene: Callable) -> FocusCheck:
    check = FocusCheck()
    for number in range(10):
        check.observe(sharpness(scene(number)))
    return check


def motion(pixels: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.blur(image, (pixels, 1))


def defocus(blur: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.GaussianBlur(image, (0, 0), blur)


@pytest.mark.parametrize("deviation", [0, 5])
@pytest.mark.parametrize("blurred", [defocus(2.5), defocus(4), defocus(8), motion(9), motion(25)])
def test_a_blurred_frame_is_less_sharp(
    blurred: Callable[[np.ndarray], np.ndarray], deviation: int, scene: Callable, noisy: Callable
) -> None:
    check = check_of(scene)
    for number in range(10, 20):
        assert check.share(sharpness(noisy(blurred(scene(number)), deviation, number))) < BLURRED_BELOW


@pytest.mark.parametrize("deviation", [0, 5])
def test_a_sharp_frame_of_another_part_is_as_sharp(deviation: int, scene: Callable, noisy: Callable) -> None:
    check = check_of(scene)
    for number in range(10, 30):
        assert check.share(sharpness(noisy(scene(number), deviation, number))) > 0.85


def test_a_camera_that_is_never_sharp_is_compared_with_itself(scene: Callable) -> None:
    check = FocusCheck()
    for number in range(10):
        check.observe(sharpness(defocus(3)(scene(number))))
    assert check.share(sharpness(defocus(3)(scene(11)))) > BLURRED_BELOW


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (100, 100)])
def test_a_frame_without_edges_is_not_blurred(size: tuple[int, int], scene: Callable) -> None:
    measured = sharpness(np.full((*size, 3), 90, np.uint8))
    assert measured == (None, None)
    assert check_of(scene).share(measured) == 1
    assert FocusCheck().share((2.0, None)) == 1
