"""Scoring many image files: in order, on several threads, in bounded memory, and with no file left out."""

import heapq
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.errors import UnreadableImageError
from msc_edge.images import bytes_of
from msc_edge.parallel import ordered_map
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.result import Result

_READERS = 2  # a network share answers two requests in little more than the time of one


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one image file: all fields but `error`, or only `path` and `error`."""

    path: str
    score: float | None = None
    p_value: float | None = None
    verdict: Verdict | None = None
    nearest: str | None = None
    """The normal image most like this one, as its path in the folder that was trained on."""
    milliseconds: float | None = None
    """Time that reading, decoding and scoring this image took."""
    error: str | None = None
    """Why the image could not be read; None when it was scored."""


def score_file_with_result(detector: Detector, path: Path) -> tuple[Row, Result | None]:
    """Score one image file: its row and the whole result; one that cannot be read has a row that says why, and None.

    A KitError is raised: it concerns the kit, and every image after this one.
    """
    return _score(detector, _read(path))


def score_file(detector: Detector, path: Path) -> Row:
    """The row of one image file; see score_file_with_result."""
    return score_file_with_result(detector, path)[0]


def score_files(detector: Detector, paths: Iterable[Path], *, threads: int | None = None) -> Generator[Row, None, None]:
    """Score image files on `threads` threads (all usable cores), one row each, in the order of `paths`.

    Load the detector with `threads=1`: several images at once on one session are faster than several threads on
    one image. Files are read ahead while others are decoded and scored, so that no core waits for the disk. In
    memory at any time are at most one decoded image a thread, and the bytes of a few files. Close the generator to
    stop early.
    """
    with (
        closing(ordered_map(_read, paths, workers=_READERS)) as files,
        # One thread decodes an image and scores it: it is in that core's cache, and no stage waits for the other.
        closing(ordered_map(lambda file: _score(detector, file)[0], files, workers=threads or usable_cores())) as rows,
    ):
        yield from rows


@dataclass(frozen=True, slots=True)
class _File:
    """An image file: its bytes, or why there are none."""

    path: Path
    data: np.ndarray | UnreadableImageError
    seconds: float


def _read(path: Path) -> _File:
    begun = time.perf_counter()
    try:
        data = bytes_of(path)
    except UnreadableImageError as error:
        data = error
    return _File(path, data, time.perf_counter() - begun)


def _score(detector: Detector, file: _File) -> tuple[Row, Result | None]:
    if isinstance(file.data, UnreadableImageError):
        return Row(str(file.path), error=str(file.data)), None
    begun = time.perf_counter()
    try:
        result = detector.score_bytes(file.data)
    except UnreadableImageError as error:
        return Row(str(file.path), error=str(error)), None
    except MemoryError:
        return Row(str(file.path), error="there is not enough memory to score it; shrink or tile it first"), None
    row = Row(
        path=str(file.path),
        score=result.score,
        p_value=result.p_value,
        verdict=result.verdict,
        nearest=result.nearest_images[0].path,
        milliseconds=1000 * (file.seconds + time.perf_counter() - begun),
    )
    return row, result


@dataclass
class Summary:
    """Counts over rows, and the few that somebody should look at."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    unreadable: int = 0
    first_unreadable: list[Row] = field(default_factory=list)
    _most_anomalous: list[tuple[float, int, Row]] = field(default_factory=list)

    def add(self, row: Row, *, keep: int = 10) -> None:
        """Count a row; of the most_anomalous and of the first unreadable ones `keep` are kept whole."""
        if row.score is None or row.verdict is None:
            self.unreadable += 1
            if len(self.first_unreadable) < keep:
                self.first_unreadable.append(row)
            return
        self.verdicts[row.verdict] += 1
        # The count breaks ties, for the earlier row: rows themselves have no order.
        heapq.heappush(self._most_anomalous, (row.score, -self.images, row))
        if len(self._most_anomalous) > keep:
            heapq.heappop(self._most_anomalous)

    @property
    def scored(self) -> int:
        """Images that have a score."""
        return self.verdicts.total()

    @property
    def images(self) -> int:
        """All rows, the unreadable ones included."""
        return self.scored + self.unreadable

    @property
    def most_anomalous(self) -> list[Row]:
        """The kept rows with the largest scores, the most_anomalous first."""
        return [row for _, _, row in sorted(self._most_anomalous, reverse=True)]
