import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.bank import Bank, ExactSearch, open_hnsw
from msc_edge.errors import KitError, MissingExtraError

seeds = st.integers(0, 2**32 - 1)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def random_embeddings(seed: int, n: int, dim: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, dim)))


def clustered(seed: int, n: int, dim: int, *, spread: float = 0.2) -> np.ndarray:
    """Similar to embeddings of one product: a few clusters with small differences within each."""
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(8, dim)))
    return unit(centres[random.integers(0, 8, n)] + spread * random.normal(size=(n, dim)) / np.sqrt(dim))


def brute_force(bank: np.ndarray, query: np.ndarray, k: int) -> float:
    """Mean of the k smallest cosine distances, all of them computed in float64."""
    distances = []
    for row in bank.astype(np.float64):
        distances.append(1 - sum(a * b for a, b in zip(row.tolist(), query.astype(np.float64).tolist(), strict=True)))
    return sum(sorted(distances)[:k]) / k


def built_index(
    path: Path, vectors: np.ndarray, *, ef_construction: int = 200, labels: np.ndarray | None = None
) -> Path:
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index(space="cosine", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=16, ef_construction=ef_construction, random_seed=0)
    index.add_items(vectors, labels, num_threads=1)
    index.save_index(str(path))
    return path


@given(seeds, st.integers(1, 60), st.integers(1, 24), st.integers(1, 5))
def test_score_is_the_mean_of_the_k_smallest_cosine_distances(seed: int, n: int, dim: int, k: int) -> None:
    bank, query = random_embeddings(seed, max(n, k), dim), random_embeddings(seed + 1, 1, dim)[0]
    assert Bank(bank, k=k).score(query) == pytest.approx(brute_force(bank, query, k), abs=1e-12)


@given(seeds)
@settings(max_examples=20)
def test_rows_that_float32_cannot_distinguish_change_a_score_by_rounding_only(seed: int) -> None:
    bank = clustered(seed, 100, 16, spread=1e-6)
    query = bank[0]
    assert Bank(bank).score(query) == pytest.approx(brute_force(bank, query, 2), abs=3e-7)


@pytest.mark.parametrize(
    ("query", "k", "expected"),
    [
        ([1, 0, 0], 1, 0.0),  # identical to a row
        ([1, 0, 0], 2, 0.5),  # and at a right angle to the second
        ([0, 0, 1], 2, 1.0),  # at a right angle to both
        ([-1, 0, 0], 1, 1.0),
        ([0.6, 0.8, 0], 2, 1 - (0.6 + 0.8) / 2),
    ],
)
def test_closed_forms(query: list[float], k: int, expected: float) -> None:
    bank = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)
    assert Bank(bank, k=k).score(np.array(query, dtype=np.float32)) == pytest.approx(expected, abs=1e-7)


def test_the_opposite_of_the_only_row_scores_two() -> None:
    bank = random_embeddings(0, 1, 512)
    assert Bank(bank, k=1).score(-bank[0]) == pytest.approx(2, abs=1e-6)


def test_nearest_rows_come_in_order_of_distance_and_then_of_row() -> None:
    bank = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    found = Bank(bank, k=4).nearest(np.array([1, 0], dtype=np.float32))
    assert found.rows == (1, 3, 2, 0)
    assert found.distances == pytest.approx((0, 0, 0.4, 1), abs=1e-7)


@given(seeds)
@settings(max_examples=20)
def test_score_does_not_change_when_the_space_is_rotated(seed: int) -> None:
    bank, query = clustered(seed, 80, 32), clustered(seed + 1, 1, 32)[0]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(32, 32)))
    rotated = Bank(unit(bank @ rotation)).score(unit(query @ rotation))
    assert rotated == pytest.approx(Bank(bank).score(query), abs=5e-7)


@given(seeds)
@settings(max_examples=20)
def test_another_row_never_raises_a_score(seed: int) -> None:
    bank, query = clustered(seed, 60, 16), random_embeddings(seed + 1, 1, 16)[0]
    assert Bank(bank).score(query) <= Bank(bank[:-1]).score(query)


class Shuffled:
    """A search that returns the true nearest rows in random order, with some others."""

    name = "shuffled"

    def __init__(self, embeddings: np.ndarray, *, seed: int, more: int) -> None:
        self._embeddings, self._random, self._more = embeddings, np.random.default_rng(seed), more

    def rows(self, query: np.ndarray, count: int) -> np.ndarray:
        nearest = np.argsort(-(self._embeddings @ query))[: count + self._more]
        return self._random.permutation(nearest)


@given(seeds, st.integers(0, 40), st.sampled_from([16, 37, 512, 1280]))
@settings(max_examples=40)
def test_any_search_that_finds_the_same_rows_gives_the_same_score_to_the_last_digit(
    seed: int, more: int, dim: int
) -> None:
    bank, query = clustered(seed, 200, dim), clustered(seed + 1, 1, dim)[0]
    assert Bank(bank, search=Shuffled(bank, seed=seed, more=more)).nearest(query) == Bank(bank).nearest(query)


def test_hnsw_gives_the_same_rows_and_scores_as_exact_search(tmp_path: Path) -> None:
    bank, queries = np.split(clustered(0, 2200, 64), [2000])
    found = Bank(bank, search=open_hnsw(built_index(tmp_path / "bank.hnsw", bank), bank, ef=200))
    assert found.search.name == "hnsw"
    assert [found.nearest(query) for query in queries] == [Bank(bank).nearest(query) for query in queries]


def test_a_missed_row_can_only_raise_a_score(tmp_path: Path) -> None:
    bank, queries = random_embeddings(0, 3000, 128), random_embeddings(1, 100, 128)
    found = Bank(bank, search=open_hnsw(built_index(tmp_path / "bank.hnsw", bank), bank, ef=6))
    scores = np.array([[found.score(query), Bank(bank).score(query)] for query in queries])
    assert (scores[:, 0] >= scores[:, 1]).all()
    assert (scores[:, 0] > scores[:, 1]).any(), "no row was missed, so this test shows nothing: lower ef"


@pytest.mark.parametrize("ef", [1, 2, 5, 6, 500])
def test_k_rows_are_returned_for_any_ef(tmp_path: Path, ef: int) -> None:
    bank = clustered(0, 300, 16)
    found = Bank(bank, search=open_hnsw(built_index(tmp_path / "bank.hnsw", bank), bank, ef=ef), k=5)
    assert len(found.nearest(bank[7]).rows) == 5


@pytest.mark.parametrize("copies", [2, 40, 400])
def test_exact_copies_in_the_bank_change_no_score(tmp_path: Path, copies: int) -> None:
    bank = np.repeat(clustered(0, 5, 32), copies, axis=0)
    found = Bank(bank, search=open_hnsw(built_index(tmp_path / "bank.hnsw", bank), bank, ef=50), k=copies)
    for query in clustered(1, 10, 32):
        assert found.score(query) == pytest.approx(brute_force(bank, query, copies), abs=1e-7)


def test_the_search_is_exact_when_the_graph_cannot_reach_enough_rows(tmp_path: Path) -> None:
    """Hundreds of copies link to each other only, so the rest of the graph is out of reach."""
    bank, k = np.repeat(clustered(0, 2, 32), 400, axis=0), 400
    search = open_hnsw(built_index(tmp_path / "bank.hnsw", bank, ef_construction=20), bank, ef=10)
    queries = unit(bank[[0, 400]] + 0.01 * random_embeddings(1, 2, 32))
    for query in queries:
        with pytest.raises(RuntimeError):
            search.rows(query, k)
        assert Bank(bank, search=search, k=k).score(query) == pytest.approx(brute_force(bank, query, k), abs=1e-7)


@given(seeds)
@settings(max_examples=20)
def test_among_copies_the_first_rows_are_returned(seed: int) -> None:
    bank = np.repeat(clustered(seed, 3, 16), 4, axis=0)
    found = Bank(bank, search=Shuffled(bank, seed=seed, more=12), k=4).nearest(bank[5])
    assert found.rows == (4, 5, 6, 7)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_a_bank_of_exactly_k_rows_averages_over_all(tmp_path: Path, k: int) -> None:
    bank, query = random_embeddings(0, k, 8), random_embeddings(1, 1, 8)[0]
    index = open_hnsw(built_index(tmp_path / "bank.hnsw", bank), bank, ef=10)
    expected = float(np.mean(1 - bank.astype(np.float64) @ query.astype(np.float64)))
    for search in (ExactSearch(bank), index):
        assert Bank(bank, search=search, k=k).score(query) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("embeddings", "k"),
    [
        (random_embeddings(0, 1, 4), 2),
        (random_embeddings(0, 3, 4)[:0], 1),
        (random_embeddings(0, 3, 4).astype(np.float64), 2),
        (random_embeddings(0, 3, 4)[0], 1),
    ],
    ids=["fewer than k", "none", "float64", "one vector"],
)
def test_other_arrays_are_refused(embeddings: np.ndarray, k: int) -> None:
    with pytest.raises(ValueError, match="expected float32"):
        Bank(embeddings, k=k)


def permuted(n: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(n)


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        (clustered(2, 300, 32), None),
        (clustered(0, 299, 32), None),
        (clustered(0, 301, 32), None),
        (clustered(0, 300, 16), None),
        (clustered(0, 300, 64), None),
        (clustered(0, 300, 2), None),
        (clustered(0, 600, 16), None),
        (clustered(0, 300, 32), permuted(300)),
        (clustered(0, 300, 32), np.arange(1000, 1300)),
    ],
    ids=[
        "other vectors",
        "one fewer",
        "one more",
        "half the dim",
        "twice the dim",
        "tiny dim",
        "same size in bytes",
        "other order",
        "other labels",
    ],
)
def test_an_index_over_other_vectors_is_refused(tmp_path: Path, vectors: np.ndarray, labels: np.ndarray | None) -> None:
    path = built_index(tmp_path / "bank.hnsw", vectors, labels=labels)
    with pytest.raises(KitError, match=r"^bank\.hnsw: .*export the kit again$"):
        open_hnsw(path, clustered(0, 300, 32), ef=50)


@pytest.mark.parametrize("content", [b"", b"hnsw", b'{"format_version": 1, "files": {}}' * 4])
def test_another_file_is_refused_before_hnswlib_opens_it(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("hnswlib")
    path = tmp_path / "bank.hnsw"
    path.write_bytes(content)
    with pytest.raises(KitError, match="not an index over this memory bank"):
        open_hnsw(path, clustered(0, 300, 32), ef=50)


def test_the_bank_under_the_name_of_the_index_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("hnswlib")
    bank = clustered(0, 300, 32)
    np.save(tmp_path / "bank.npy", bank)
    path = (tmp_path / "bank.npy").rename(tmp_path / "bank.hnsw")
    with pytest.raises(KitError, match="not an index over this memory bank"):
        open_hnsw(path, bank, ef=50)


def test_without_hnswlib_the_error_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'msc-edge\[hnsw\]'"):
        open_hnsw(tmp_path / "bank.hnsw", clustered(0, 10, 8), ef=10)
