import numpy as np
import pytest

from msc_edge.demo.shapes import bevel, box, circle, cover, lit, noise, path


def grid(side: int = 200) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    column, row = np.meshgrid(axis, axis)
    return column, row


def area(distance: np.ndarray) -> float:
    return float(cover(distance).mean()) * 4


@pytest.mark.parametrize("radius", [0.1, 0.5, 0.9])
def test_a_circle_covers_its_area(radius: float) -> None:
    assert area(circle(*grid(), radius)) == pytest.approx(np.pi * radius**2, rel=0.01)


@pytest.mark.parametrize("corner", [0.0, 0.1, 0.3])
def test_a_box_covers_its_area_without_its_corners(corner: float) -> None:
    assert area(box(*grid(), 0.7, 0.3, corner)) == pytest.approx(4 * 0.7 * 0.3 - (4 - np.pi) * corner**2, rel=0.01)


def test_distances_are_measured_to_the_edge() -> None:
    x, y = (np.array([value], np.float32) for value in (0.9, 0.8))
    assert circle(x, y, 0.5) == pytest.approx(np.hypot(0.9, 0.8) - 0.5)
    assert box(x, y, 0.5, 0.5) == pytest.approx(np.hypot(0.4, 0.3))
    assert box(np.zeros(1, np.float32), np.zeros(1, np.float32), 0.5, 0.2) == pytest.approx(-0.2)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    assert path(np.array([0.4], np.float32), np.array([0.3], np.float32), corners) == pytest.approx(0.3)
    assert path(np.array([1.3], np.float32), np.array([1.4], np.float32), corners) == pytest.approx(0.5)


def test_a_bevel_rises_from_the_edge_to_one() -> None:
    distance = np.linspace(0.1, -0.3, 50, dtype=np.float32)
    height = bevel(distance, 0.2)
    assert height[0] == 0
    assert height[-1] == 1
    assert (np.diff(height) >= 0).all()


def test_a_slope_is_brighter_the_more_it_faces_the_light() -> None:
    x, _ = grid(50)
    toward, flat, away = (float(lit(slope * 10 * x, (-0.6, 0.0), shine=0).mean()) for slope in (1, 0, -1))
    assert toward > flat > away


@pytest.mark.parametrize("grain", [(3.0, 3.0), (1.6, 60.0), (40.0, 40.0)])
def test_noise_has_no_mean_and_a_deviation_of_one(grain: tuple[float, float]) -> None:
    drawn = noise(np.random.default_rng(0), 256, grain)
    assert drawn.shape == (256, 256)
    assert float(drawn.mean()) == pytest.approx(0, abs=1e-4)
    assert float(drawn.std()) == pytest.approx(1, abs=1e-3)
