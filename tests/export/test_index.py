from pathlib import Path

import numpy as np
import pytest

from msc_edge.bank import Bank, HnswSearch, open_hnsw
from msc_edge.export import index as index_module
from msc_edge.export.index import MIN_RECALL, MIN_ROWS, build_index, kth_similarity, preferred_search, recall_at_k
from msc_edge.kit.model_entry import HnswIndex

K = 2


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def structureless(seed: int, rows: int, dim: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(rows, dim)))


def clustered(seed: int, rows: int, dim: int) -> np.ndarray:
    """Like embeddings of one product: all near one direction, and spread over four others."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(4, dim))
    noise = 0.05 * random.normal(size=(rows, dim))
    return unit(10 * np.eye(dim)[0] + random.normal(size=(rows, 4)) @ directions + noise)


def nearest_rows(bank: np.ndarray, queries: np.ndarray) -> list[set[int]]:
    """The K nearest rows of each query, by sorting all distances in float64."""
    distances = 1 - queries.astype(np.float64) @ bank.astype(np.float64).T
    return [set(np.argsort(row)[:K].tolist()) for row in distances]


def found_share(search: HnswSearch, bank: np.ndarray, queries: np.ndarray) -> float:
    found = [
        len(truth & set(search.rows(query, K).tolist()))
        for query, truth in zip(queries, nearest_rows(bank, queries), strict=True)
    ]
    return sum(found) / (K * len(queries))


@pytest.mark.parametrize("kind", [clustered, structureless])
def test_recall_is_that_of_the_saved_index_compared_with_brute_force(kind, tmp_path: Path) -> None:
    bank, queries = kind(1, 600, 32), kind(2, 1000, 32)
    index = build_index(bank, queries, K, tmp_path / "bank.hnsw")
    assert (index.file, index.queries) == ("bank.hnsw", 1000)
    assert index.recall >= MIN_RECALL
    reopened = open_hnsw(tmp_path / "bank.hnsw", bank, ef=index.ef)
    assert index.recall == pytest.approx(found_share(reopened, bank, queries), abs=1e-9)
    if kind is structureless:  # the smallest ef that reaches it
        assert index.ef > 16
        assert found_share(open_hnsw(tmp_path / "bank.hnsw", bank, ef=index.ef // 2), bank, queries) < MIN_RECALL


def test_a_recall_below_the_required_one_is_reported_and_search_stays_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_EFS", (4, 8))  # with the real ones, a bank of 600 rows is found whole
    bank, queries = structureless(1, 600, 64), structureless(2, 1000, 64)
    index = build_index(bank, queries, K, tmp_path / "bank.hnsw")
    assert index.ef == 8
    assert index.recall < MIN_RECALL
    reopened = open_hnsw(tmp_path / "bank.hnsw", bank, ef=index.ef)
    assert index.recall == pytest.approx(found_share(reopened, bank, queries), abs=1e-9)
    assert preferred_search(index, count=10**6) == "exact"


@pytest.mark.parametrize(
    ("recall", "count", "expected"),
    [(1.0, MIN_ROWS, "hnsw"), (1.0, MIN_ROWS - 1, "exact"), (0.9989, 10**6, "exact"), (0.999, 10**6, "hnsw")],
)
def test_hnsw_is_preferred_where_it_is_faster_and_finds_the_same(recall: float, count: int, expected: str) -> None:
    index = HnswIndex(file="bank.hnsw", m=16, ef_construction=200, ef=64, recall=recall, queries=1000)
    assert preferred_search(index, count=count) == expected


def test_recall_of_an_index_over_another_bank_is_low(tmp_path: Path) -> None:
    bank, queries = structureless(1, 300, 16), structureless(2, 50, 16)
    build_index(bank, queries, K, tmp_path / "bank.hnsw")
    search = open_hnsw(tmp_path / "bank.hnsw", bank, ef=64)

    def measured(rows: np.ndarray) -> float:
        return recall_at_k(search, rows, queries, kth_similarity(rows, queries, K), K)

    assert measured(bank) == 1
    other = unit(bank + 0.5 * structureless(3, 300, 16))
    assert measured(other) == pytest.approx(found_share(search, other, queries), abs=1e-9)
    assert 0 < measured(other) < 1
    assert measured(-bank) == 0


def test_copies_of_an_image_count_as_found_whichever_is_returned(tmp_path: Path) -> None:
    bank = np.repeat(clustered(1, 100, 32), 3, axis=0)
    index = build_index(bank, clustered(2, 60, 32), K, tmp_path / "bank.hnsw")
    assert index.recall >= MIN_RECALL


@pytest.mark.parametrize("rows", [2, 3, 17])
def test_scores_over_a_small_bank_are_those_of_exact_search(rows: int, tmp_path: Path) -> None:
    bank, queries = clustered(1, rows, 8), clustered(2, 20, 8)
    index = build_index(bank, queries[:1], K, tmp_path / "bank.hnsw")
    assert index.recall == 1
    indexed = Bank(bank, search=open_hnsw(tmp_path / "bank.hnsw", bank, ef=index.ef), k=K)
    assert [indexed.score(query) for query in queries] == [Bank(bank, k=K).score(query) for query in queries]


def test_the_same_bank_gives_the_same_file(tmp_path: Path) -> None:
    bank, queries = clustered(1, 400, 32), clustered(2, 10, 32)
    one, two = (build_index(bank, queries, K, tmp_path / name) for name in ("one", "two"))
    assert one.model_copy(update={"file": "two"}) == two
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
