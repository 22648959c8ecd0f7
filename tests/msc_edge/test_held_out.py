"""Scores of images held out in turn, compared with a bank that was built without them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.bank import Bank
from msc_edge.calibration import Calibration
from msc_edge.held_out import can_be_held_out_in_turn, image_scores_in_turn


def unit_rows(count: int, *, seed: int, dim: int = 12) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), groups=st.lists(st.integers(0, 8), min_size=6, max_size=40))
def test_an_image_has_the_score_of_a_bank_without_its_group(seed: int, groups: list[int]) -> None:
    if not can_be_held_out_in_turn(groups, k=2, patches=False):
        return
    rows, numbers = unit_rows(len(groups), seed=seed), np.array(groups)
    found = image_scores_in_turn(Bank(rows), groups, rows, groups)
    expected = [Bank(rows[numbers != group]).score(row) for row, group in zip(rows, groups, strict=True)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_images_that_the_network_was_not_trained_on_are_compared_with_all_rows_of_other_groups() -> None:
    rows, groups = unit_rows(40, seed=2), (np.arange(40) // 4).tolist()
    places = [1, 0, 17, 39]
    found = image_scores_in_turn(Bank(rows), groups, rows[places], [groups[place] for place in places])
    assert found == pytest.approx(image_scores_in_turn(Bank(rows), groups, rows, groups)[places], abs=1e-12)


def test_more_images_than_are_compared_at_once() -> None:
    rows, groups = unit_rows(600, seed=1), (np.arange(600) // 3).tolist()
    found = image_scores_in_turn(Bank(rows), groups, rows, groups)
    for place in (0, 255, 256, 599):
        others = np.arange(600) // 3 != groups[place]
        assert found[place] == pytest.approx(Bank(rows[others]).score(rows[place]), abs=1e-12)


@pytest.mark.parametrize(
    ("groups", "possible"),
    [([0, 1, 2], True), ([0, 0, 1, 2], True), ([0, 0, 0, 1, 2], False), ([0, 0], False), ([0, 1], False)],
)
def test_a_group_must_leave_half_of_the_images_and_enough_for_a_score(groups: list[int], possible: bool) -> None:
    assert can_be_held_out_in_turn(groups, k=2, patches=False) == possible


@pytest.mark.parametrize(("images", "in_group"), [(32, 1), (60, 3)])
def test_new_images_of_new_parts_are_above_a_limit_as_often_as_stated(images: int, in_group: int) -> None:
    """Groups are clusters of like images. The bank of the new images has all images, that of the calibration not."""
    random, alarms, expected, new = np.random.default_rng(0), 0, 0.0, 60

    def draw(parts: int) -> np.ndarray:
        rows = np.repeat(random.normal(size=(parts, 6)), in_group, axis=0)
        rows += 0.3 * random.normal(size=rows.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    for _ in range(60):
        bank = Bank(draw(images // in_group))
        groups = (np.arange(images) // in_group).tolist()
        calibration = Calibration(image_scores_in_turn(bank, groups, bank.embeddings, groups), groups)
        limit = calibration.limit(0.1)
        alarms += sum(bank.score(row) > limit.score for row in draw(new // in_group))
        expected += (limit.expected_rate or 0) * new
    assert 0.6 * expected < alarms < 1.1 * expected
