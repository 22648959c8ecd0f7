"""The index files of hnswlib 0.8, checked completely before hnswlib opens one.

hnswlib trusts its file: a link, a level or an entry point outside the graph makes it read foreign memory. The file is
a header; for each vector the links of the lowest level, the vector and its label; then for each vector the size of its
links on the higher levels, and those links. All numbers are little-endian.
"""

import struct

import numpy as np

_HEADER = struct.Struct("<6QiI3QdQ")
_VECTORS_AT_ONCE = 4096
_SAME = 1e-5  # hnswlib stores the vectors normalised by its own arithmetic


def check_hnsw(data: np.ndarray, embeddings: np.ndarray) -> None:
    """ValueError with the reason where a file is not an index of space `cosine` over these embeddings.

    `data`: the bytes of the file, uint8 (n,). `embeddings`: float32 (count, dim), unit rows. The labels must be the row
    numbers, in any order. hnswlib reads no memory outside of a graph that passes.
    """
    count, dim = embeddings.shape
    if data.size < _HEADER.size:
        raise ValueError("it is too short")
    level_0, capacity, found, stride, label_at, vector_at, top_level, entry, m, m_0, m_again, factor, _ = (
        _HEADER.unpack_from(data.data)
    )
    if (found, label_at - vector_at) != (count, 4 * dim):
        raise ValueError(f"it does not have {count} vectors of {dim} values")
    if (level_0, vector_at, stride) != (0, 4 + 4 * m_0, label_at + 8) or (m, m_0) != (m_again, 2 * m):
        raise ValueError("its header contradicts itself")
    if m < 2 or capacity < count or not 0 < factor < np.inf:
        raise ValueError("a number of its header is impossible")
    end = _HEADER.size + count * stride
    if end > data.size:
        raise ValueError("it is too short")
    vectors = data[_HEADER.size : end].view(
        np.dtype([("links", "<u4"), ("link", "<u4", (m_0,)), ("vector", "<f4", (dim,)), ("label", "<u8")])
    )
    _check_links(vectors["links"], vectors["link"], within=count)
    _check_vectors(vectors["vector"], vectors["label"], embeddings)

    levels, lists = _higher_links(data[end:], count, m)
    if not (entry < count and levels[entry] == top_level == levels.max()):
        raise ValueError("its entry point is not on the highest level")
    counts, links = lists[:, 0], lists[:, 1:]
    _check_links(counts, links, within=count)
    level_of = np.concatenate([np.arange(1, level + 1) for level in levels.tolist()])
    used = np.arange(m) < counts[:, None]
    if (levels[np.where(used, links, entry)] < level_of[:, None]).any():
        raise ValueError("a link leads to a level that its vector does not have")


def _higher_links(data: np.ndarray, count: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest level of each vector, int64 (count,), and all lists of links above level 0, uint32 (lists, 1 + m).

    A list begins with the number of its links. A vector has one list for each of its levels, the lowest first.
    """
    if data.size % 4:
        raise ValueError("its size is impossible")
    words = np.frombuffer(data.tobytes(), "<u4")
    sizes = words.data  # faster than an array, one by one
    levels, size_at, position = np.zeros(count, np.int64), [], 0
    for vector in range(count):
        if position >= len(words):
            raise ValueError("it is too short")
        size_at.append(position)
        if size := sizes[position]:
            levels[vector], rest = divmod(size, 4 + 4 * m)
            if rest:
                raise ValueError("the links of a vector have an impossible size")
        position += 1 + size // 4
    if position != len(words):
        raise ValueError("its size does not fit its links")
    return levels, np.delete(words, size_at).reshape(-1, 1 + m)


def _check_links(counts: np.ndarray, links: np.ndarray, *, within: int) -> None:
    """`counts` (n,) of the links (n, most) are used. The upper half of a count would mark a vector as deleted."""
    most = links.shape[1]
    if (counts > min(most, 0xFFFF)).any():
        raise ValueError("a vector has too many links, or is marked as deleted")
    if ((links >= within) & (np.arange(most) < counts[:, None])).any():
        raise ValueError("a link leads out of the graph")


def _check_vectors(vectors: np.ndarray, labels: np.ndarray, embeddings: np.ndarray) -> None:
    if not np.array_equal(np.sort(labels), np.arange(len(embeddings), dtype=np.uint64)):
        raise ValueError("its labels are not the row numbers of the memory bank")
    for start in range(0, len(vectors), _VECTORS_AT_ONCE):
        block = slice(start, start + _VECTORS_AT_ONCE)
        if not np.abs(vectors[block] - embeddings[labels[block]]).max() <= _SAME:  # also true for NaN
            raise ValueError("its vectors are not those of the memory bank")
