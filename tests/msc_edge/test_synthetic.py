from collections.abc import Callable

import numpy as np
import pytest

from msc_edge.synthetic import KINDS, draw_defect, faded, paste_piece, shuffle_quarters

SIZES = [(1, 1), (1, 40), (2, 3), (3, 500), (32, 32), (65, 128)]


def surface(size: tuple[int, int], grey: float = 120, spread: float = 10, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(grey, spread, (*size, 3))
    return noise.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("make_anomaly", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_an_anomaly_can_be_made_from_any_image_without_changing_it(
    make_anomaly: Callable, size: tuple[int, int]
) -> None:
    image = surface(size)
    before = image.copy()
    for seed in range(20):
        anomaly = make_anomaly(image, np.random.default_rng(seed))
        assert anomaly.dtype == np.uint8
        assert anomaly.shape[2] == 3
        assert all(0 <= before - now <= 1 for before, now in zip(size, anomaly.shape[:2], strict=True))
        assert not np.shares_memory(anomaly, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("make_anomaly", KINDS.values(), ids=KINDS)
def test_the_same_seed_makes_the_same_anomaly_and_another_seed_does_not(make_anomaly: Callable) -> None:
    image = surface((64, 64))
    one, same, other = (make_anomaly(image, np.random.default_rng(seed)) for seed in (3, 3, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_an_anomaly_fades_into_its_image() -> None:
    image = surface((64, 64))
    anomaly = draw_defect(image, np.random.default_rng(0))
    np.testing.assert_array_equal(faded(image, anomaly, 0.0), image)
    np.testing.assert_array_equal(faded(image, anomaly, 1.0), anomaly)
    strengths = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0]
    changes = [np.abs(faded(image, anomaly, each).astype(int) - image).mean() for each in strengths]
    assert changes == sorted(set(changes))
    half = faded(image, anomaly, 0.5)
    assert np.abs(half - (image.astype(float) + anomaly) / 2).max() <= 0.5
    assert half.dtype == np.uint8


@pytest.mark.parametrize("grey", [0, 60, 200, 255])
def test_a_drawn_defect_is_visible_and_small(grey: int) -> None:
    # Also on surfaces without texture, where pasting and blurring have no effect, and at both ends of the grey scale.
    image = surface((100, 140), grey, spread=0)
    for seed in range(40):
        change = np.abs(draw_defect(image, np.random.default_rng(seed)).astype(int) - image).max(axis=2)
        assert change.max() >= 5
        assert 0.0002 < (change > 0).mean() < 0.08


def test_a_drawn_defect_changes_a_small_part_of_a_textured_image() -> None:
    image = surface((100, 140))
    shares = [(draw_defect(image, np.random.default_rng(seed)) != image).any(axis=2).mean() for seed in range(100)]
    assert min(shares) > 0
    assert max(shares) < 0.08
    assert len({round(share, 3) for share in shares}) > 20  # of all sizes


def test_a_pasted_piece_is_a_part_of_the_image() -> None:
    height, width = 60, 80
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:height, :width]  # each pixel encodes its place
    for seed in range(100):
        pasted = paste_piece(image, np.random.default_rng(seed))
        moved = (pasted != image).any(axis=2)
        assert moved.mean() <= 0.16
        rows, columns = np.nonzero(moved)
        if not len(rows):
            continue  # pasted onto its own place
        box = pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int)
        assert set(np.unique(np.diff(box[..., 0], axis=0))) <= {1}
        assert len(set(np.unique(np.diff(box[..., 1], axis=1))) & {1, -1}) <= 1  # the same orientation, or mirrored
        assert (pasted[..., 2] == 0).all()


def test_shuffled_quarters_are_the_quarters_in_another_order() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    image[:3, 4:], image[3:, :4], image[3:, 4:] = 1, 2, 3
    orders = set()
    for seed in range(200):
        quarters = shuffle_quarters(image, np.random.default_rng(seed))[::3, ::4, 0].flatten().tolist()
        assert sorted(quarters) == [0, 1, 2, 3] != quarters
        orders.add(tuple(quarters))
    assert len(orders) == 23
