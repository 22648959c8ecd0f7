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
def test_any_picture_can_be_spoiled_and_is_itself_left_alone(spoil: Callable, size: tuple[int, int]) -> None:
    picture = surface(size)
    before = picture.copy()
    for seed in range(20):
        spoiled = spoil(picture, np.random.default_rng(seed))
        assert spoiled.dtype == np.uint8
        assert spoiled.shape[2] == 3
        assert all(0 <= before - now <= 1 for before, now in zip(size, spoiled.shape[:2], strict=True))
        assert not np.shares_memory(spoiled, picture)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("spoil", KINDS.values(), ids=KINDS)
def test_the_same_random_numbers_spoil_alike_and_others_differently(spoil: Callable) -> None:
    picture = surface((64, 64))
    one, same, other = (spoil(picture, np.random.default_rng(seed)) for seed in (3, 3, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("grey", [0, 60, 200, 255])
def test_a_drawn_defect_can_be_seen_and_is_small(grey: int) -> None:
    # Also where pasting or blurring would show nothing: on a surface without any texture, at either end of the scale.
    picture = surface((100, 140), grey, spread=0)
    for seed in range(100):
        change = np.abs(with_defect(picture, np.random.default_rng(seed)).astype(int) - picture).max(axis=2)
        assert change.max() >= 5
        assert 0.0002 < (change > 0).mean() < 0.08


def test_most_of_a_textured_picture_keeps_every_pixel_beside_a_drawn_defect() -> None:
    picture = surface((100, 140))
    shares = [(with_defect(picture, np.random.default_rng(seed)) != picture).any(axis=2).mean() for seed in range(100)]
    assert min(shares) > 0
    assert max(shares) < 0.08
    assert len({round(share, 3) for share in shares}) > 20  # of all sizes


def test_a_pasted_piece_comes_from_the_picture_itself() -> None:
    height, width = 60, 80
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.mgrid[:height, :width]  # each pixel tells where it was
    for seed in range(100):
        pasted = with_piece_pasted(picture, np.random.default_rng(seed))
        moved = (pasted != picture).any(axis=2)
        assert moved.mean() <= 0.16
        rows, columns = np.nonzero(moved)
        if not len(rows):
            continue  # by chance onto its own place
        box = pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int)
        assert set(np.unique(np.diff(box[..., 0], axis=0))) <= {1}
        assert len(set(np.unique(np.diff(box[..., 1], axis=1))) & {1, -1}) <= 1  # as it was, or mirrored
        assert (pasted[..., 2] == 0).all()


def test_jumbled_quarters_are_the_quarters_in_another_order() -> None:
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[:3, 4:], picture[3:, :4], picture[3:, 4:] = 1, 2, 3
    orders = set()
    for seed in range(200):
        quarters = jumbled(picture, np.random.default_rng(seed))[::3, ::4, 0].flatten().tolist()
        assert sorted(quarters) == [0, 1, 2, 3] != quarters
        orders.add(tuple(quarters))
    assert len(orders) == 23
