import numpy as np
import pytest

from msc_edge.groups import near_duplicates, numbered


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def parts(count: int, seed: int = 0, dim: int = 256) -> np.ndarray:
    """Embeddings of independent parts: far from the origin, with few strong and many weak directions."""
    random = np.random.default_rng(seed)
    spread = 0.3 * np.arange(1, dim + 1) ** -0.7
    return 1 + random.normal(size=(count, dim)) * spread @ np.linalg.qr(random.normal(size=(dim, dim)))[0]


def photographed(of: np.ndarray, times: int, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """`times` images of each part with different exposures, which shift all parts alike, and some noise; the parts."""
    random = np.random.default_rng(seed)
    exposure = random.normal(size=of.shape[1])
    images = np.concatenate([of + step * exposure for step in np.linspace(-0.3, 0.3, times)])
    images += random.normal(size=images.shape) * 0.02 * of.std(axis=0).mean()
    return unit(images), np.tile(np.arange(len(of)), times)


@pytest.mark.parametrize("count", [3, 10, 60, 300, 2500])
def test_independent_images_are_not_grouped(count: int) -> None:
    assert list(near_duplicates(unit(parts(count)))) == list(range(count))


@pytest.mark.parametrize("count", [120, 200, 1000])
def test_images_that_differ_in_one_angle_are_not_grouped(count: int) -> None:
    """Parts that lie on a table in any orientation: neighbours in angle are alike, and still other parts."""
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, count)
    waves = np.arange(1, 9)[:, None] * angle
    turned = np.concatenate([np.sin(waves), np.cos(waves)]).T @ random.normal(size=(16, 256)) * 0.2
    assert len(set(near_duplicates(unit(parts(count) + turned)))) == count


@pytest.mark.parametrize("times", [2, 3, 6])
def test_images_of_one_part_are_one_group_whatever_the_exposure(times: int) -> None:
    images, part = photographed(parts(120), times)
    assert list(near_duplicates(images)) == list(part)


def test_copies_are_found_among_a_few_images() -> None:
    rows = unit(parts(9))
    rows[7] = rows[2]
    assert list(near_duplicates(rows)) == [0, 1, 2, 3, 4, 5, 6, 2, 7]


def test_equal_images_are_one_group() -> None:
    assert list(near_duplicates(np.repeat(unit(parts(1)), 5, axis=0))) == [0] * 5


def test_groups_depend_neither_on_the_order_nor_on_the_basis() -> None:
    random = np.random.default_rng(2)
    images, part = photographed(parts(70), 3)
    order = random.permutation(len(images))
    turned = images[order] @ np.linalg.qr(random.normal(size=(256, 256)))[0].astype(np.float32)
    assert list(near_duplicates(turned)) == list(numbered(part[order]))


def test_groups_are_numbered_by_their_first_image() -> None:
    assert list(numbered(np.array([7, 3, 7, 9, 3]))) == [0, 1, 0, 2, 1]
