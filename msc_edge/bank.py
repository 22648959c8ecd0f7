"""The bank of normal embeddings and the score against it.

The score is the mean cosine distance `1 - cos` to the k nearest normals, k = 2 (Reiss & Hoshen, arXiv 2106.03844,
section 3; DN2, Bergman et al., arXiv 2002.10445). Search finds *which* rows are nearest; the distances are then
computed here, in float64, from `bank.npy`. So an exact search and an index that finds the same rows give the same
score to the last digit, on every machine.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from msc_edge.errors import KitError, MissingExtraError

# More rows than asked for come from the float32 search, so that its rounding cannot change which are nearest.
_SPARE = 4


class Search(Protocol):
    """Finds rows of the bank near a query."""

    name: str

    def rows(self, query: np.ndarray, count: int) -> np.ndarray:
        """About `count` rows nearest to `query`, float32 of shape (dim,); int64 of shape (count,), any order."""
        ...


class ExactSearch:
    """Compares a query with every row: no recall to worry about, and faster than an index up to some thousands."""

    name = "exact"

    def __init__(self, embeddings: np.ndarray) -> None:
        """`embeddings`: float32 of shape (n, dim), unit rows."""
        self._embeddings = embeddings

    def rows(self, query: np.ndarray, count: int) -> np.ndarray:
        """See Search."""
        # Not `@`: BLAS would start threads of its own, and wait for them where other images have the cores.
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


@dataclass(frozen=True)
class NearestRows:
    """The k nearest normals of an image, nearest first."""

    rows: tuple[int, ...]
    distances: tuple[float, ...]

    @property
    def score(self) -> float:
        """Mean cosine distance, in [0, 2]: 0 is identical, larger is stranger. Not clamped."""
        return sum(self.distances) / len(self.distances)


class Bank:
    """Normal embeddings with a way to search them."""

    def __init__(self, embeddings: np.ndarray, *, search: Search | None = None, k: int = 2) -> None:
        """`embeddings`: float32 of shape (n, dim), unit rows, n >= k. Without `search` it is exact."""
        if embeddings.ndim != 2 or embeddings.dtype != np.float32 or len(embeddings) < k:
            raise ValueError(f"expected float32 of shape (n >= {k}, dim), got {embeddings.dtype} {embeddings.shape}")
        self.embeddings = embeddings
        self.k = k
        self.search = search or ExactSearch(embeddings)
        self._exact = ExactSearch(embeddings)

    def nearest(self, query: np.ndarray) -> NearestRows:
        """The k nearest normals of one unit embedding, float32 of shape (dim,)."""
        count = min(self.k + _SPARE, len(self.embeddings))
        try:
            rows = self.search.rows(query, count)
        except RuntimeError:  # hnswlib: unreachable nodes leave too few results
            rows = self._exact.rows(query, count)
        # Not `@`: BLAS rounds a row's sum differently according to where in the block it stands.
        distances = 1.0 - np.multiply(self.embeddings[rows], query, dtype=np.float64).sum(axis=1)
        nearest = sorted(zip(distances.tolist(), rows.tolist(), strict=True))[: self.k]
        return NearestRows(rows=tuple(row for _, row in nearest), distances=tuple(distance for distance, _ in nearest))

    def score(self, query: np.ndarray) -> float:
        """Score of one unit embedding; see NearestRows.score."""
        return self.nearest(query).score


def open_hnsw(path: Path, embeddings: np.ndarray, *, ef: int) -> HnswSearch:
    """Open an index that was built over `embeddings`, and make sure that it was.

    Give only a file whose SHA-256 has been checked: hnswlib trusts what it reads, and a damaged file can crash the
    process. Raises MissingExtraError without hnswlib, KitError when the index is not one over this bank.
    """
    try:
        import hnswlib  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the HNSW index needs hnswlib, which is not installed. Install it with: pip install 'msc-edge[hnsw]', "
            "or use exact search"
        ) from error
    not_own = KitError(f"{path.name}: this is not an index over bank.npy; export the kit again")
    count, dim = embeddings.shape
    if _size_of_index(path) != (count, dim):
        raise not_own
    index = hnswlib.Index(space="cosine", dim=dim)
    # An index over other vectors opens without complaint and answers wrongly, so some are compared.
    sample = np.linspace(0, count - 1, num=min(count, 16)).astype(int)
    try:
        index.load_index(str(path), max_elements=count)
        own = np.allclose(index.get_items(sample), embeddings[sample], atol=1e-5)
    except RuntimeError as error:
        raise KitError(f"{path.name}: hnswlib cannot read it ({error}); export the kit again") from error
    if not own:
        raise not_own
    return HnswSearch(index, ef=ef)


def _size_of_index(path: Path) -> tuple[int, int] | None:
    """Vectors in an hnswlib 0.8 file and their length: hnswlib, told another length, would read past their end."""
    header = struct.Struct("=6Q")  # level-0 offset, capacity, count, bytes an element, label offset, vector offset
    with path.open("rb") as file:
        start = file.read(header.size)
    if len(start) < header.size:
        return None
    level_0, capacity, count, element, label, vector = header.unpack(start)
    if level_0 != 0 or capacity < count or element != label + 8 or label < vector:
        return None
    return count, (label - vector) // 4
