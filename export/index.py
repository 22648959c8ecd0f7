"""The HNSW index over a memory bank, and its recall."""

import math
from pathlib import Path
from typing import Literal

import hnswlib
import numpy as np

from msc_edge.bank import HnswSearch
from msc_edge.kit.manifest import HnswIndex

MIN_RECALL = 0.999
# After an embedding, with the bank out of the cache: exact search takes 0.33 ms over 1000 rows of 1280, 0.69 over 3000;
# the graph takes 0.21 and 0.29 (benchmarks/cost_curves.py).
MIN_ROWS = 2000
M, EF_CONSTRUCTION = 16, 200
_EFS = (16, 32, 64, 128, 256, 512)
_QUERIES = 1000


def build_index(embeddings: np.ndarray, queries: np.ndarray, k: int, path: Path, *, seed: int = 0) -> HnswIndex:
    """Build an index over the bank (n, dim), save it to `path`, and give the least ef that reaches MIN_RECALL.

    `queries`: held-out embeddings (m, dim). Where they are few, bank rows with a little noise join them. If no ef
    reaches the recall, the largest stands with what it measured. One thread, so that the file is the same each time.
    """
    count, dim = embeddings.shape
    index = hnswlib.Index(space="cosine", dim=dim)
    index.init_index(max_elements=count, M=M, ef_construction=EF_CONSTRUCTION, random_seed=seed)
    index.set_num_threads(1)
    index.add_items(embeddings, np.arange(count))
    index.save_index(str(path))

    queries = _enough(queries, embeddings, seed)
    ef, recall = least_ef(index, embeddings, queries, k)
    return HnswIndex(file=path.name, m=M, ef_construction=EF_CONSTRUCTION, ef=ef, recall=recall, queries=len(queries))


def least_ef(index: hnswlib.Index, embeddings: np.ndarray, queries: np.ndarray, k: int) -> tuple[int, float]:
    """The least ef with which an index over the bank reaches MIN_RECALL, or the largest there is; and the recall."""
    kth = kth_similarity(embeddings, queries, k)
    ef, recall = _EFS[0], 0.0
    for ef in _EFS:
        recall = recall_at_k(HnswSearch(index, ef=ef), embeddings, queries, kth, k)
        if recall >= MIN_RECALL:
            break
    return ef, recall


def preferred_search(index: HnswIndex, *, count: int) -> Literal["exact", "hnsw"]:
    """`hnsw` where the index finds what it should and `count` rows are enough to gain by it, else `exact`."""
    return "hnsw" if index.recall >= MIN_RECALL and count >= MIN_ROWS else "exact"


def kth_similarity(embeddings: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Cosine between each query, (m, dim), and its k-th nearest row of the bank, by comparing it with all: (m,)."""
    some = np.array_split(queries, math.ceil(len(queries) / 100))  # the product of all at once could be large
    return np.concatenate([np.partition(part @ embeddings.T, -k, axis=1)[:, -k] for part in some])


def recall_at_k(search: HnswSearch, embeddings: np.ndarray, queries: np.ndarray, kth: np.ndarray, k: int) -> float:
    """Share of the true k nearest rows that `search` finds when asked for k; `kth`: see kth_similarity."""
    found = 0
    for query, least in zip(queries, kth, strict=True):
        try:
            rows = search.rows(query, k)
        except RuntimeError:  # too few reachable
            continue
        # A row as near as the k-th is as good: copies of an image are interchangeable.
        found += int((embeddings[rows] @ query >= least - 1e-6).sum())
    return found / (k * len(queries))


def _enough(queries: np.ndarray, embeddings: np.ndarray, seed: int) -> np.ndarray:
    if len(queries) >= _QUERIES:
        return queries[:_QUERIES]
    rng = np.random.default_rng(seed)
    rows = embeddings[rng.integers(len(embeddings), size=_QUERIES - len(queries))]
    noisy = rows + rng.normal(scale=0.1 / np.sqrt(rows.shape[1]), size=rows.shape)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    return np.concatenate([queries, noisy]).astype(np.float32)
