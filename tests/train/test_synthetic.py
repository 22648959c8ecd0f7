from collections.abc import Callable

import numpy as np
import pytest

from msc_edge.train.synthetic import KINDS, jumbled, with_defect, with_piece_pasted

SIZES = [(1, 1), (1, 40), (2, 3), (3, 500), (32, 32), (65, 128)]


def surface(size: tuple[int, int], grey: float = 120, spread: float = 10, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(grey, spread, (*size, 3))
    return noise.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("spoil", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_any_image_can_be_spoiled_and_is_itself_left_alone(spoil: Callable, size: tuple[int, int]) -> None:
    image = surface(size)
    before = image.copy()
    for seed in range(20):
        spoiled = spoil(image, np.random.default_rng(seed))
        assert spoiled.dtype == np.uint8
        assert spoiled.shape[2] == 3
        assert all(0 <= before - now <= 1 for before, now in zip(size, spoiled.shape[:2], strict=True))
        assert not np.shares_memory(spoiled, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("spoil", KINDS.values(), ids=KINDS)
def test_the_same_random_numbers_spoil_alike_and_others_differently(spoil: Callable) -> None:
    image = surface((64, 64))
    one, same, other = (spoil(image, np.random.default_rng(seed)) for seed in (3, 3, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("grey", [0, 60, 200, 255])
def test_a_drawn_defect_can_be_seen_and_is_small(grey: int) -> None:
    # Also where pasting or blurring would show nothing: on a surface without any texture, at either end of the scale.
    image = surface((100, 140), grey, spread=0)
    for seed in range(100):
        change = np.abs(with_defect(image, np.random.default_rng(seed)).astype(int) - image).max(axis=2)
        assert change.max() >= 5
        assert 0.0002 < (change > 0).mean() < 0.08


def test_most_of_a_textured_image_keeps_every_pixel_beside_a_drawn_defect() -> None:
    image = surface((100, 140))
    shares = [(with_defect(image, np.random.default_rng(seed)) != image).any(axis=2).mean() for seed in range(100)]
    assert min(shares) > 0
    assert max(shares) < 0.08
    assert len({round(share, 3) for share in shares}) > 20  # of all sizes


def test_a_pasted_piece_comes_from_the_image_itself() -> None:
    height, width = 60, 80
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:height, :width]  # each pixel tells where it was
    for seed in range(100):
        pasted = with_piece_pasted(image, np.random.default_rng(seed))
        moved = (pasted != image).any(axis=2)
        assert moved.mean() <= 0.16
        rows, columns = np.nonzero(moved)
        if not len(rows):
            continue  # by chance onto its own place
        box = pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int)
        assert set(np.unique(np.diff(box[..., 0], axis=0))) <= {1}
        assert len(set(np.unique(np.diff(box[..., 1], axis=1))) & {1, -1}) <= 1  # as it was, or mirrored
        assert (pasted[..., 2] == 0).all()


def test_jumbled_quarters_are_the_quarters_in_another_order() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    image[:3, 4:], image[3:, :4], image[3:, 4:] = 1, 2, 3
    orders = set()
    for seed in range(200):
        quarters = jumbled(image, np.random.default_rng(seed))[::3, ::4, 0].flatten().tolist()
        assert sorted(quarters) == [0, 1, 2, 3] != quarters
        orders.add(tuple(quarters))
    assert len(orders) == 23
