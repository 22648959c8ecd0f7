import numpy as np
import pytest
import torch

from msc_edge.train.patches.coreset import Coreset, k_center
from msc_edge.train.patches.substitutes import PatchRows


def points(count: int, dim: int = 8, *, seed: int = 0) -> torch.Tensor:
    """Points with clusters and outliers, as patches have."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=(count, 1)))
    return torch.from_numpy((scale * rng.normal(size=(count, dim))).astype(np.float32))


def plain_k_center(rows: np.ndarray, count: int) -> list[int]:
    """The algorithm as published: one centre at a time."""
    chosen = [int(np.square(rows).sum(axis=1).argmax())]
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.square(rows - rows[chosen[-1]]).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    return chosen


def radius(rows: torch.Tensor, centres: torch.Tensor) -> float:
    return float(torch.cdist(rows, centres).amin(dim=1).max())


@pytest.mark.parametrize("candidates", [1, 7, 64, 4096])
def test_the_centres_are_those_of_the_plain_algorithm(candidates: int) -> None:
    rows = points(500)
    assert k_center(rows, 60, candidates=candidates).tolist() == plain_k_center(rows.double().numpy(), 60)


def test_the_radius_is_at_most_twice_the_smallest_one() -> None:
    # Four tight clusters and four centres: the smallest radius is that of a cluster.
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [0, 100], [100, 0], [100, 100]], np.float32)
    rows = torch.from_numpy(np.repeat(corners, 50, axis=0) + rng.uniform(-1, 1, (200, 2)).astype(np.float32))
    assert radius(rows, rows[k_center(rows, 4)]) <= 2 * np.sqrt(8)


def test_equal_points_and_too_few_points() -> None:
    same = torch.ones(5, 3)
    assert sorted(k_center(same, 3).tolist()) == sorted(set(k_center(same, 3).tolist()))
    assert sorted(k_center(same, 10).tolist()) == [0, 1, 2, 3, 4]


def test_points_that_come_in_pieces_give_the_coreset_of_all() -> None:
    rows = points(300)
    coreset = Coreset(20)
    images = torch.arange(300) // 7
    for piece, of in zip(rows.split(37), images.split(37), strict=True):
        coreset.add(PatchRows(piece, of))
    chosen = k_center(rows, 20)
    for found, expected in zip(coreset.select(), (rows[chosen], images[chosen]), strict=True):
        assert torch.equal(found, expected)


def test_a_coreset_of_blocks_covers_all_points_and_does_not_depend_on_the_pieces() -> None:
    rows, images = points(3000, seed=1), torch.arange(3000)
    results = []
    for piece in (50, 777):
        coreset = Coreset(20, block_rows=500)
        for part, of in zip(rows.split(piece), images.split(piece), strict=True):
            coreset.add(PatchRows(part, of))
        found, of_rows = coreset.select()
        assert torch.equal(rows[of_rows], found)  # here each point is an image of its own
        results.append(found)
    assert torch.equal(*results)
    # Each point is within the radius of its block's centres, and these within that of the coreset: twice at most.
    assert radius(rows, results[0]) <= 2 * radius(rows, rows[k_center(rows, 20)])


def test_fewer_patches_than_rows_are_all_kept() -> None:
    coreset = Coreset(20)
    coreset.add(PatchRows(points(7), torch.arange(7)))
    assert [len(part) for part in coreset.select()] == [7, 7]
