"""Harmless changes: how large they are, that they repeat, and that nothing moves where it must not."""

import cv2
import numpy as np
import pytest

from msc_edge.train.harmless import MOST_COPIES, changed_copies, copied_images, harmlessly_changed


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A dark disc on a bright ground, 300 x 200."""
    canvas = np.full((200, 300, 3), 120, np.uint8)
    return cv2.circle(canvas, (150, 100), 40, (40, 40, 40), -1)


def centre(image: np.ndarray) -> np.ndarray:
    """Of the dark disc, in pixels: x and y."""
    dark = np.argwhere(image[..., 0] < 0.65 * image[0, 0, 0])
    return dark.mean(axis=0)[::-1]


def test_the_same_images_give_the_same_copies_and_each_another_one(image: np.ndarray) -> None:
    named = [(str(number), image) for number in range(6)]
    one, same = (list(changed_copies(named, may_move=True)) for _ in range(2))
    assert [name for name, _ in one] == [name for name, _ in named]
    for (_, first), (_, second) in zip(one, same, strict=True):
        np.testing.assert_array_equal(first, second)
    assert len({copy.tobytes() for _, copy in one}) == 6
    assert all((copy.shape, copy.dtype) == (image.shape, np.uint8) for _, copy in one)


def test_changes_are_small_and_go_both_ways(image: np.ndarray) -> None:
    copies = [harmlessly_changed(image, np.random.default_rng(seed), may_move=True) for seed in range(200)]
    brightness = np.array([copy[0, 0, 0] / 120 for copy in copies])
    shifts = np.array([centre(copy) for copy in copies]) - (150, 100)
    assert 0.8 <= brightness.min() < 0.83
    assert 1.17 < brightness.max() <= 1.21
    assert np.abs(shifts).max() <= 0.02 * 200 + 0.5
    assert shifts.min() < -3
    assert shifts.max() > 3


def test_every_second_copy_is_blurred(image: np.ndarray) -> None:
    copies = [harmlessly_changed(image, np.random.default_rng(seed), may_move=False) for seed in range(200)]
    blurred = [len(np.unique(copy[100])) > 2 for copy in copies]  # a sharp edge has two levels
    assert 75 <= sum(blurred) <= 125


def test_nothing_moves_under_an_ignore_mask(image: np.ndarray) -> None:
    for seed in range(20):
        copy = harmlessly_changed(image, np.random.default_rng(seed), may_move=False)
        assert centre(copy) == pytest.approx((150, 100), abs=0.5)


def test_the_ends_of_a_long_frame_move_no_further_than_its_middle_allows() -> None:
    long = np.full((100, 4000, 3), 120, np.uint8)
    long[45:55] = 20  # a line along the frame
    for seed in range(20):
        copy = harmlessly_changed(long, np.random.default_rng(seed), may_move=True)
        rows = [np.argwhere(copy[:, x, 0] < 0.6 * copy[0, 2000, 0]).mean() for x in (10, 3990)]
        assert np.abs(np.array(rows) - 49.5).max() < 0.06 * 100 + 3


@pytest.mark.parametrize(("images", "copies"), [(1, 1), (2, 2), (256, 256), (257, 256), (10_000, 256)])
def test_at_most_so_many_images_are_copied_evenly(images: int, copies: int) -> None:
    places = copied_images(images)
    assert len(places) == copies <= MOST_COPIES
    assert (places[0], places[-1]) == (0, images - 1)
    assert np.diff(places).max(initial=1) <= images / copies + 1


def test_the_smallest_images_can_be_changed() -> None:
    for shape in ((1, 1, 3), (1, 50, 3), (2, 2, 3)):
        copy = harmlessly_changed(np.full(shape, 100, np.uint8), np.random.default_rng(1), may_move=True)
        assert copy.shape == shape
