"""The memory bank of normal embeddings, and the score of an embedding against it.

The score is the mean cosine distance `1 - cos` to the k nearest normal images, k = 2 (Reiss & Hoshen, arXiv
2106.03844, section 3; DN2, Bergman et al., arXiv 2002.10445). A search finds which rows are nearest; the distances are
then computed here, in float64, from the rows themselves. Exact search and an index that finds the same rows therefore
give the same score to the last digit, on every machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from msc_edge.errors import KitError, MissingExtraError
from msc_edge.formats.hnsw import check_hnsw

K = 2
"""Nearest normal images that a score is the mean distance to."""
# A search in float32 returns some more rows than needed, so that its rounding cannot change which ones are nearest.
SPARE = 4


class Search(Protocol):
    """Finds the rows of a memory bank that are nearest to an embedding."""

    name: str

    def rows(self, query: np.ndarray, count: int) -> np.ndarray:
        """The `count` rows nearest to `query`, float32 (dim,); int64 (count,), any order. An index may miss some."""
        ...


class ExactSearch:
    """Compares an embedding with every row: recall 1, and faster than an index up to a few thousand rows."""

    name = "exact"

    def __init__(self, embeddings: np.ndarray) -> None:
        """`embeddings`: float32 of shape (n, dim), unit rows."""
        self._embeddings = embeddings

    def rows(self, query: np.ndarray, count: int) -> np.ndarray:
        """See Search."""
        # Avoid `@`: BLAS starts its own threads and stalls when other images use the cores.
        similarity = np.vecdot(self._embeddings, query)
        if count >= similarity.size:
            return np.arange(similarity.size)
        return similarity.argpartition(-count)[-count:]


class HnswSearch:
    """Searches an HNSW graph (Malkov & Yashunin, arXiv 1603.09320) that hnswlib built over the bank."""

    name = "hnsw"

    def __init__(self, index: object, *, ef: int) -> None:
        """`index`: an hnswlib.Index of space `cosine`; `ef`: candidates kept during a search."""
        self._index = index
        self._index.set_ef(ef)  # pyright: ignore[reportAttributeAccessIssue]

    def rows(self, query: np.ndarray, count: int) -> np.ndarray:
        """See Search. RuntimeError when the graph cannot reach `count` rows."""
        labels, _ = self._index.knn_query(query[None], k=count, num_threads=1)  # pyright: ignore[reportAttributeAccessIssue]
        return labels[0].astype(np.int64)


class ExtendedSearch:
    """A search of a memory bank to which rows were added: these are all found."""

    def __init__(self, search: Search, *, first: int, count: int) -> None:
        """`search`: of the rows before `first`; `count` rows follow."""
        self.name = search.name
        self._search = search
        self._first = first
        self._added = np.arange(first, first + count)

    def rows(self, query: np.ndarray, count: int) -> np.ndarray:
        """See Search; the added rows come on top of `count`."""
        return np.concatenate([self._search.rows(query, min(count, self._first)), self._added])


@dataclass(frozen=True)
class NearestRows:
    """The k rows nearest to an embedding, nearest first."""

    rows: tuple[int, ...]
    distances: tuple[float, ...]

    @property
    def score(self) -> float:
        """Mean cosine distance, in [0, 2]: 0 is identical, larger is more anomalous. Not clamped."""
        return sum(self.distances) / len(self.distances)


class Bank:
    """A memory bank: the embeddings of normal images, and a search over them."""

    def __init__(self, embeddings: np.ndarray, *, search: Search | None = None, k: int = K) -> None:
        """`embeddings`: float32 of shape (n, dim), unit rows, n >= k. The default search is exact."""
        if embeddings.ndim != 2 or embeddings.dtype != np.float32 or len(embeddings) < k:
            raise ValueError(f"expected float32 of shape (n >= {k}, dim), got {embeddings.dtype} {embeddings.shape}")
        self.embeddings = embeddings
        self.k = k
        self.search = search or ExactSearch(embeddings)
        self._exact = ExactSearch(embeddings)

    def extended(self, rows: np.ndarray) -> "Bank":
        """A bank with further rows, float32 (m, dim), unit rows, after those of this one."""
        search = ExtendedSearch(self.search, first=len(self.embeddings), count=len(rows))
        return Bank(np.concatenate([self.embeddings, rows]), search=search, k=self.k)

    def nearest(self, query: np.ndarray) -> NearestRows:
        """The k rows nearest to one unit embedding, float32 of shape (dim,)."""
        count = min(self.k + SPARE, len(self.embeddings))
        try:
            rows = self.search.rows(query, count)
        except RuntimeError:  # hnswlib: unreachable nodes leave too few results
            rows = self._exact.rows(query, count)
        return self.nearest_of(query, rows)

    def nearest_of(self, query: np.ndarray, rows: np.ndarray) -> NearestRows:
        """The k nearest of some rows, int64 (n,), n >= k."""
        # Avoid `@`: BLAS rounds the sum of a row differently at different places of a block.
        distances = 1.0 - np.multiply(self.embeddings[rows], query, dtype=np.float64).sum(axis=1)
        nearest = sorted(zip(distances.tolist(), rows.tolist(), strict=True))[: self.k]
        return NearestRows(rows=tuple(row for _, row in nearest), distances=tuple(distance for distance, _ in nearest))

    def score(self, query: np.ndarray) -> float:
        """Score of one unit embedding; see NearestRows.score."""
        return self.nearest(query).score


def open_hnsw(path: Path, embeddings: np.ndarray, *, ef: int) -> HnswSearch:
    """Open an index after a check that it is one over `embeddings`, and that hnswlib can trust it.

    Raises MissingExtraError without hnswlib, KitError when the index does not belong to this memory bank.
    """
    try:
        import hnswlib  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the HNSW index needs hnswlib, which is not installed. Install it with: pip install 'msc-edge[hnsw]', "
            "or use exact search"
        ) from error
    count, dim = embeddings.shape
    index = hnswlib.Index(space="cosine", dim=dim)
    try:
        check_hnsw(np.fromfile(path, np.uint8), embeddings)
        index.load_index(str(path), max_elements=count)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        raise KitError(f"{path.name}: not an index over this memory bank ({error}); export the kit again") from error
    return HnswSearch(index, ef=ef)
