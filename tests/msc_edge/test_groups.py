from pathlib import Path

import numpy as np
import pytest

from msc_edge.groups import joined, near_duplicate_files, near_duplicates, numbered, orders_of, series_of


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


@pytest.mark.parametrize("seed", range(3))
def test_different_kinds_of_parts_that_vary_in_few_directions_are_not_grouped(seed: int) -> None:
    """Three kinds, far apart. Each varies in 20 directions of its own, where two of its images are often alike."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(256, 256)))[0]
    kinds = [
        3 * basis[-1 - kind] + random.normal(size=(200, 20)) * 0.1 @ basis[20 * kind : 20 * kind + 20]
        for kind in range(3)
    ]
    images = unit(np.concatenate(kinds) + random.normal(size=(600, 256)) * 0.005)
    assert len(set(near_duplicates(images, [np.arange(600)]))) == 600


def test_images_of_one_part_in_two_lights_are_one_group() -> None:
    """The lights are further apart than any two parts."""
    shown = parts(200, seed=4)
    light = 20 * parts(2, seed=5).std(axis=0)
    random = np.random.default_rng(6)
    noise = random.normal(size=(400, shown.shape[1])) * 0.02 * shown.std(axis=0).mean()
    images = unit(np.concatenate([shown, shown + light]) + noise)
    assert list(near_duplicates(images)) == list(np.tile(np.arange(200), 2))


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


def two_views(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two images of each part, in turn, whose deviations from the mean have a cosine of 0.5; and the parts."""
    drawn = parts(3 * count, seed=seed) - 1
    images = drawn[:count].repeat(2, axis=0) + drawn[count:]
    return unit(1 + images / 2**0.5), np.arange(count).repeat(2)


def pairs_found(groups: np.ndarray, part: np.ndarray) -> tuple[int, int]:
    """How many pairs of images of one part are in one group, and how many pairs of images of two parts."""
    one_group, one_part = (np.triu(each[:, None] == each[None], 1) for each in (groups, part))
    return int((one_group & one_part).sum()), int((one_group & ~one_part).sum())


@pytest.mark.parametrize("count", [200, 400])
def test_neighbours_in_an_order_need_less_evidence(count: int) -> None:
    images, part = two_views(count)
    random = np.random.default_rng(0).permutation(len(images))
    as_taken = np.arange(len(images))
    alone = pairs_found(near_duplicates(images), part)
    found = pairs_found(near_duplicates(images, [random, as_taken]), part)
    assert pairs_found(near_duplicates(images, [random]), part) == alone
    assert alone[0] < 0.15 * count < 0.3 * count < found[0]
    assert found[1] <= alone[1] + 0.02 * count  # joined parts: few


@pytest.mark.parametrize("count", [40, 300, 2500])
def test_independent_images_are_not_grouped_in_any_order(count: int) -> None:
    random = np.random.default_rng(count)
    orders = [np.arange(count), *(random.permutation(count) for _ in range(5))]
    assert list(near_duplicates(unit(parts(count)), orders)) == list(range(count))


def order_of_names(names: list[str], times: list[float] | None = None) -> list[list[str]]:
    return [[names[i] for i in order] for order in orders_of(names, times)]


def test_names_are_sorted_by_their_numbers_as_a_whole_and_by_each_number() -> None:
    names = ["exp1_num_20.png", "exp1_num_100.png", "exp2_num_21.png", "exp10_num_3.png"]
    assert order_of_names(names) == [names, ["exp10_num_3.png", names[0], names[2], names[1]]]


def test_numbers_of_folders_do_not_sort_by_themselves() -> None:
    names = ["day2/a.png", "day10/a.png", "day2/b.png"]
    assert order_of_names(names) == [["day2/a.png", "day2/b.png", "day10/a.png"]]


def test_names_with_unlike_numbers_are_sorted_by_those_that_all_have() -> None:
    names = ["3_9.png", "5.png", "4_1.png"]
    assert order_of_names(names) == [["3_9.png", "4_1.png", "5.png"]]


def test_times_are_an_order_of_their_own() -> None:
    names = ["a.png", "b.png", "c.png"]
    assert order_of_names(names, [2.0, 3.0, 1.0]) == [names, ["c.png", "a.png", "b.png"]]
    assert order_of_names(names, [1.0, 1.0, 1.0]) == [names]


def test_no_images_have_no_order() -> None:
    assert [len(order) for order in orders_of([])] == [0]


class TestSeries:
    """Parts that were photographed many times each: `part007_03.png`."""

    @staticmethod
    def photographed(parts: int, times: int, *, noise: float = 0.2) -> np.ndarray:
        random = np.random.default_rng(0)
        own = np.repeat(random.normal(size=(parts, 128)), times, axis=0)
        rows = own + noise * random.normal(size=own.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    @pytest.mark.parametrize(("parts", "times"), [(4, 40), (20, 10), (40, 5), (3, 4)])
    def test_images_of_one_number_that_hardly_differ_are_of_one_part(self, parts: int, times: int) -> None:
        names = [f"line 3/part{part:03}_{time:02}.png" for part in range(parts) for time in range(times)]
        found = list(series_of(self.photographed(parts, times), names))
        assert [groups.tolist() for groups in found] == [np.repeat(np.arange(parts), times).tolist()]

    def test_numbers_that_say_nothing_about_the_parts_give_no_groups(self) -> None:
        rows = self.photographed(160, 1)
        assert not list(series_of(rows, [f"exp{number % 5}_part{number:03}.png" for number in range(160)]))
        assert not list(series_of(rows, [f"{number}.png" for number in range(160)]))
        assert not list(series_of(rows, ["a.png", *(f"{number}.png" for number in range(159))]))

    def test_kinds_of_parts_are_no_parts(self) -> None:
        """Three kinds of 100 parts each, with a number of their kind in their names."""
        names = [f"type{kind}_{part:03}.png" for kind in range(3) for part in range(100)]
        assert not list(series_of(self.photographed(3, 100), names))

    def test_files_of_a_series_are_grouped(self, tmp_path: Path) -> None:
        names = [f"part{part:03}_{time:02}.png" for part in range(20) for time in range(10)]
        for name in names:
            (tmp_path / name).touch()
        found = near_duplicate_files(self.photographed(20, 10), tmp_path, names)
        assert found.tolist() == np.repeat(np.arange(20), 10).tolist()

    def test_groups_are_joined_through_images_that_they_share(self) -> None:
        assert joined(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 3])).tolist() == [0, 0, 0, 1, 1]
        assert joined(np.array([0, 1, 2]), np.array([5, 5, 5])).tolist() == [0, 0, 0]
