import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from msc_edge.formats.hnsw import check_hnsw

hnswlib = pytest.importorskip("hnswlib")

COUNT, DIM, M = 60, 8, 4
HEADER = struct.Struct("<6QiI3QdQ")
NAMES = ("level_0", "capacity", "count", "stride", "label", "vector", "top", "entry", "m", "m_0", "m_2", "factor", "ef")


def unit_rows(count: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ROWS = unit_rows(COUNT, DIM)


def index_over(rows: np.ndarray, path: Path, *, m: int = M) -> bytes:
    index = hnswlib.Index(space="cosine", dim=rows.shape[1])
    index.init_index(max_elements=len(rows), M=m, ef_construction=50, random_seed=3)
    index.add_items(rows, num_threads=1)
    index.save_index(str(path))
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    data = index_over(ROWS, tmp_path_factory.mktemp("hnsw") / "bank.hnsw")
    assert HEADER.unpack_from(data)[6] >= 2, "the graph needs several levels"
    return data


def check(data: bytes, rows: np.ndarray = ROWS) -> None:
    check_hnsw(np.frombuffer(data, np.uint8), rows)


def with_header(data: bytes, **changes: float) -> bytes:
    values = dict(zip(NAMES, HEADER.unpack_from(data), strict=True)) | changes
    return HEADER.pack(*values.values()) + data[HEADER.size :]


def with_word(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def mutated(data: bytes, seed: int) -> bytes:
    """The file with one to three changes: of a byte, a number, the length, or two numbers swapped."""
    random = np.random.default_rng(seed)
    for _ in range(random.integers(1, 4)):
        changed = bytearray(data)
        at = 4 * int(random.integers(len(data) // 4))
        kind = random.integers(6)
        if kind == 0:
            changed[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        elif kind == 1:
            values = [0, 1, 2, 20, COUNT - 1, COUNT, 2 * M, 0xFFFF, 0x10000, 10**9, 0xFFFFFFFF]
            changed[at : at + 4] = struct.pack("<I", values[random.integers(len(values))])
        elif kind == 2:  # of the header, or of the sizes and links above the lowest level
            place = 4 * int(random.integers(HEADER.size // 4)) if random.integers(2) else len(data) - 4 - at // 8 * 4
            changed[place : place + 4] = struct.pack("<I", int(random.integers(COUNT + 2)))
        elif kind == 3:
            other = 4 * int(random.integers(len(data) // 4))
            changed[at : at + 4], changed[other : other + 4] = changed[other : other + 4], changed[at : at + 4]
        elif kind == 4:
            del changed[at : at + int(random.integers(1, 40))]
        else:
            changed[at:at] = changed[at : at + 4 * int(random.integers(1, 12))]
        data = bytes(changed)
    return data


def search_mutations(path: Path, first: int, last: int) -> None:
    """Open mutations of the file at `path` that pass, and search them. Runs in a process that it may crash."""
    whole, passed = path.read_bytes(), 0
    queries = np.concatenate([ROWS, -ROWS, np.full((1, DIM), np.nan, np.float32)])
    target = path.with_name("mutated.hnsw")
    for seed in range(first, last):
        data = mutated(whole, seed)
        try:
            check(data)
        except ValueError:
            continue
        passed += 1
        target.write_bytes(data)
        index = hnswlib.Index(space="cosine", dim=DIM)
        index.load_index(str(target), max_elements=COUNT)
        for ef in (1, 10, COUNT):
            index.set_ef(ef)
            for query in queries:
                try:
                    labels, _ = index.knn_query(query[None], k=3, num_threads=1)
                except RuntimeError:
                    continue
                assert labels.max() < COUNT, seed
    print(f"passed: {passed} of {last - first}")  # noqa: T201


def test_no_mutation_that_passes_crashes_hnswlib(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bank.hnsw"
    path.write_bytes(whole)
    ran = subprocess.run(
        [sys.executable, __file__, str(path), "0", "400"], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-1000:]
    passed = int(ran.stdout.split()[1])
    assert 0 < passed < 200, "nearly all mutations are refused, and some are harmless"


@pytest.mark.parametrize(("count", "dim", "m"), [(1, 3, 2), (2, 1, 16), (500, 16, 16), (300, 5, 2), (40, 64, 48)])
def test_every_index_that_hnswlib_writes_passes(tmp_path: Path, count: int, dim: int, m: int) -> None:
    rows = unit_rows(count, dim)
    check(index_over(rows, tmp_path / "bank.hnsw", m=m), rows)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"level_0": 4}, "contradicts"),
        ({"capacity": COUNT - 1}, "impossible"),
        ({"count": COUNT - 1}, "60 vectors of 8"),
        ({"stride": 1}, "contradicts"),
        ({"label": 1}, "60 vectors of 8"),
        ({"vector": 0, "label": 4 * DIM, "stride": 4 * DIM + 8}, "contradicts"),
        ({"top": 0}, "entry point"),
        ({"top": 1000}, "entry point"),
        ({"top": -1}, "entry point"),
        ({"entry": COUNT}, "entry point"),
        ({"entry": 10**9}, "entry point"),
        ({"m": 0, "m_2": 0}, "contradicts"),
        ({"m": M + 1}, "contradicts"),
        ({"m_0": 2**61}, "contradicts"),
        ({"factor": float("nan")}, "impossible"),
        ({"factor": 0.0}, "impossible"),
    ],
)
def test_a_header_that_hnswlib_would_trust_is_refused(whole: bytes, changes: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check(with_header(whole, **changes))


FIRST = HEADER.size  # the number of links of the first vector; its links, its values and its label follow
VECTOR = FIRST + 4 + 4 * 2 * M
LABEL = VECTOR + 4 * DIM


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (FIRST, 2 * M + 1, "too many links"),
        (FIRST, 0x10001, "marked as deleted"),
        (FIRST + 4, COUNT, "out of the graph"),
        (FIRST + 4, 0xFFFFFFFF, "out of the graph"),
        (VECTOR, 0x7FC00000, "not those of the memory bank"),  # NaN
        (VECTOR + 4, 0, "not those of the memory bank"),
        (LABEL, COUNT, "labels"),
        (LABEL, 1, "labels"),
        (LABEL + 4, 1, "labels"),
    ],
)
def test_what_a_search_would_follow_is_refused(whole: bytes, at: int, value: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check(with_word(whole, at, value))


def test_links_above_the_lowest_level_stay_within_it(whole: bytes) -> None:
    end = HEADER.size + COUNT * HEADER.unpack_from(whole)[3]
    sizes, at = [], []  # of the links of each vector above the lowest level
    for vector in range(COUNT):
        at.append(end + 4 * vector + sum(sizes))
        sizes += struct.unpack_from("<I", whole, at[vector])
    at, without = at[next(vector for vector in range(COUNT) if sizes[vector])], sizes.index(0)
    for word, value, reason in (
        (at, 4 + 4 * M + 4, "impossible size"),
        (at, 3 * (4 + 4 * M), "too short|does not fit|impossible size"),
        (at + 4, M + 1, "too many links"),
        (at + 8, COUNT, "out of the graph"),
        (at + 8, without, "does not have"),
    ):
        with pytest.raises(ValueError, match=reason):
            check(with_word(whole, word, value))


def test_a_file_of_any_other_length_is_refused(whole: bytes) -> None:
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match=r".+"):
            check(whole[:length])
    for more in (b"\0", b"\0\0\0\0", whole):
        with pytest.raises(ValueError, match="size"):
            check(whole + more)


if __name__ == "__main__":
    search_mutations(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
