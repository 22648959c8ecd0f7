"""The HNSW index of a memory bank, and the recall of its search."""

import math
from pathlib import Path
from typing import Literal

import hnswlib
import numpy as np

from msc_edge.bank import HnswSearch
from msc_edge.kit.model_entry import HnswIndex

MIN_RECALL = 0.999
# Rows from which HNSW search is faster. With the bank out of the cache, exact search takes 0.33 ms over 1000 rows of
# 1280 numbers and 0.69 ms over 3000 rows; HNSW search takes 0.21 ms and 0.29 ms (benchmarks/cost_curves.py).
MIN_ROWS = 2000
M, EF_CONSTRUCTION = 16, 200
_EFS = (16, 32, 64, 128, 256, 512)
_QUERIES = 1000  # that measure the recall


def build_index(
    embeddings: np.ndarray, queries: np.ndarray, k: int, path: Path, *, known: np.ndarray | None = None, seed: int = 0
) -> HnswIndex:
    """Build an index over the rows of a memory bank, float32 (n, dim), and save it to `path`.

    The entry returned has the smallest ef whose recall is at least MIN_RECALL, or the largest ef if none reaches it,
    and the measured recall. `queries`: embeddings of held-out images, float32 (m, dim). If they are rows of the bank,
    too, they are searched for in an index of the other rows, `known`, bool (n,): an image finds its own row too easily.
    Fewer than 1000 queries are filled up with noisy copies of bank rows. The same bank and seed give the same file.
    """
    index = _index_over(embeddings, seed)
    index.save_index(str(path))
    if known is not None and not known.all():
        embeddings = embeddings[known]
        index = _index_over(embeddings, seed)
    queries = _filled_up(queries, embeddings, seed)
    ef, recall = least_ef(index, embeddings, queries, k)
    return HnswIndex(file=path.name, m=M, ef_construction=EF_CONSTRUCTION, ef=ef, recall=recall, queries=len(queries))


def _index_over(embeddings: np.ndarray, seed: int) -> hnswlib.Index:
    count, dim = embeddings.shape
    index = hnswlib.Index(space="cosine", dim=dim)
    index.init_index(max_elements=count, M=M, ef_construction=EF_CONSTRUCTION, random_seed=seed)
    index.set_num_threads(1)  # several threads insert in a random order
    index.add_items(embeddings, np.arange(count))
    return index


def least_ef(index: hnswlib.Index, embeddings: np.ndarray, queries: np.ndarray, k: int) -> tuple[int, float]:
    """The smallest ef whose recall is at least MIN_RECALL, or the largest ef if none reaches it; and the recall."""
    kth = kth_similarity(embeddings, queries, k)
    ef, recall = _EFS[0], 0.0
    for ef in _EFS:
        recall = recall_at_k(HnswSearch(index, ef=ef), embeddings, queries, kth, k)
        if recall >= MIN_RECALL:
            break
    return ef, recall


def preferred_search(index: HnswIndex, *, count: int) -> Literal["exact", "hnsw"]:
    """`hnsw` if its recall is at least MIN_RECALL and the bank has at least MIN_ROWS rows, else `exact`."""
    return "hnsw" if index.recall >= MIN_RECALL and count >= MIN_ROWS else "exact"


def kth_similarity(embeddings: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Cosine similarity of each query, (m, dim), and its k-th nearest row of the bank, by exact search: (m,)."""
    parts = np.array_split(queries, math.ceil(len(queries) / 100))  # bounds the memory of the product
    return np.concatenate([np.partition(part @ embeddings.T, -k, axis=1)[:, -k] for part in parts])


def recall_at_k(search: HnswSearch, embeddings: np.ndarray, queries: np.ndarray, kth: np.ndarray, k: int) -> float:
    """Share of the true k nearest rows that `search` finds, in [0, 1]. `kth`: see `kth_similarity`."""
    found = 0
    for query, similarity in zip(queries, kth, strict=True):
        try:
            rows = search.rows(query, k)
        except RuntimeError:  # hnswlib reaches fewer than k rows
            continue
        # Any row that is as near as the k-th counts: copies of an image are interchangeable.
        found += int((embeddings[rows] @ query >= similarity - 1e-6).sum())
    return found / (k * len(queries))


def _filled_up(queries: np.ndarray, embeddings: np.ndarray, seed: int) -> np.ndarray:
    if len(queries) >= _QUERIES:
        return queries[:_QUERIES]
    rng = np.random.default_rng(seed)
    rows = embeddings[rng.integers(len(embeddings), size=_QUERIES - len(queries))]
    noisy = rows + rng.normal(scale=0.1 / np.sqrt(rows.shape[1]), size=rows.shape)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    return np.concatenate([queries, noisy]).astype(np.float32)
