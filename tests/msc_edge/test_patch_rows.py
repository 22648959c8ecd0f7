import numpy as np
import pytest
import torch

from msc_edge.patch_rows import ROUNDING, covering, distances_to
from msc_edge.train.patches.head import distances_to as distances_of_training

random = np.random.default_rng(0)
ROWS, PATCHES = (random.normal(size=(count, 32)).astype(np.float32) for count in (50, 300))


def test_distances_are_euclidean_to_the_nearest_row() -> None:
    expected = [min(np.linalg.norm(patch.astype(float) - row) for row in ROWS) for patch in PATCHES]
    assert distances_to(ROWS, PATCHES) == pytest.approx(expected, rel=1e-5)


def test_distances_are_those_of_a_patch_head_also_where_rounding_decides() -> None:
    patches = np.concatenate([PATCHES, ROWS, ROWS + np.float32(1e-4)])
    expected = distances_of_training(torch.from_numpy(ROWS), torch.from_numpy(patches)).numpy()
    assert distances_to(ROWS, patches) == pytest.approx(expected, rel=1e-5)
    assert distances_to(ROWS, ROWS) == pytest.approx(np.sqrt(ROUNDING) * np.linalg.norm(ROWS, axis=1), rel=1e-5)


@pytest.mark.parametrize("radius", [3.0, 5.0, 7.0])
def test_a_few_patches_cover_all_within_the_radius(radius: float) -> None:
    to_bank = distances_to(ROWS, PATCHES)
    chosen = covering(PATCHES, to_bank, radius)
    assert (np.diff(chosen) > 0).all()
    assert (to_bank[chosen] > radius).all(), "patches near the bank need no row"
    nearest = np.minimum(to_bank, distances_to(PATCHES[chosen], PATCHES)) if len(chosen) else to_bank
    assert nearest.max() <= radius
    for place in range(len(chosen) - 1):  # none of them could be left out
        assert distances_to(PATCHES[chosen[place]][None], PATCHES[chosen[place + 1 :]]).min() > radius


def test_where_all_patches_are_near_the_bank_no_row_is_needed() -> None:
    assert covering(ROWS, distances_to(ROWS, ROWS), 1.0).shape == (0,)
    assert covering(np.empty((0, 32), np.float32), np.empty(0, np.float32), 1.0).shape == (0,)


def test_equal_patches_need_one_row() -> None:
    far = np.full((20, 32), 9, np.float32)
    assert covering(far, distances_to(ROWS, far), 1.0).shape == (1,)
