"""One row for each frame, as CSV or JSON lines, in files that are rotated."""

import re
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msc_edge.errors import OtherColumnsError, OutputError, UsageError, writing
from msc_edge.runtime.results.fields import Field, later_fields, result_fields
from msc_edge.runtime.results.formats import format_of
from msc_edge.runtime.results.row_file import RowFile, move_aside
from msc_edge.runtime.stream.frame import Decision, Stages
from msc_edge.runtime.stream.logs import LOG

_REMEMBERED = 1000  # ids that FrameRows.has knows
_FINISHED = "%Y-%m-%dT%H-%M-%S-%f"  # the time in the name of a finished file; of %f the first three digits


def _time(decision: Decision) -> str:
    return f"{decision.frame.time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _stage(name: str, description: str, stage: str) -> Field[Decision]:
    def value(decision: Decision) -> float | None:
        stages: Stages | None = decision.stages
        return None if stages is None else getattr(stages, stage)

    return Field(name=name, type="number", decimals=1, unit="milliseconds", description=description, value=value)


FRAME_FIELDS: tuple[Field[Decision], ...] = (
    Field(
        name="id",
        type="text",
        description="id of the frame; a file that did not change keeps it after a restart",
        value=lambda decision: decision.id,
    ),
    Field(name="time", type="text", description="when the frame was captured or read, UTC, ISO 8601", value=_time),
    Field(name="source", type="text", description="name of the source", value=lambda decision: decision.frame.source),
    Field(
        name="frame",
        type="integer",
        description="number of the frame in its source, from 0",
        value=lambda decision: decision.frame.index,
    ),
    Field(name="path", type="text", description="the image file", value=lambda decision: decision.frame.path),
    Field(
        name="position",
        type="number",
        decimals=3,
        unit="seconds",
        description="position of the frame in a video file",
        value=lambda decision: decision.frame.position,
    ),
    Field(
        name="trigger",
        type="text",
        description="id of the trigger that asked for the frame",
        value=lambda decision: decision.frame.trigger,
    ),
    *result_fields(lambda decision: decision.result),
    *later_fields(lambda decision: decision.result),
    _stage("age_ms", "time from capture until scoring began", "age"),
    _stage("infer_ms", "time for preprocessing and network", "infer"),
    _stage("search_ms", "time for the nearest normal images and the verdict", "search"),
    _stage("total_ms", "time from capture until the decision", "total"),
    Field(
        name="dropped",
        type="integer",
        description="frames of a live source since the frame before that were lost: too many to score, or damaged",
        value=lambda decision: decision.frame.dropped,
    ),
    Field(
        name="skipped",
        type="integer",
        description="frames of a live source since the frame before that were left out because of max_fps",
        value=lambda decision: decision.frame.skipped,
    ),
    Field(
        name="error",
        type="text",
        description="why the frame could not be read or scored; the fields of the result are then empty",
        value=lambda decision: decision.frame.error,
    ),
)


class FrameRows:
    """A file of rows that is appended to and rotated. Safe to use from several threads.

    When a row would make it larger than `rotate_bytes`, the file is renamed to `<stem>.<UTC time><suffix>` beside it
    and a new one begins; the newest `keep` finished files stay. A file with other columns, which another version wrote,
    is renamed to `<stem>.<UTC time>.other-columns<suffix>` and stays.
    """

    def __init__(self, path: Path, *, rotate_bytes: int, keep: int) -> None:
        """Open the file or begin it; an incomplete last row is removed.

        Raises UsageError when the suffix is neither .csv nor .jsonl or the file is not a row file (it stays as it is),
        OutputError when it cannot be written.
        """
        self.path = path
        self._format = format_of(path, FRAME_FIELDS)
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._lock = threading.Lock()
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._file = self._open()
        with writing(path):
            rows, finished = self._last_rows(path), self._finished()
            if finished and len(rows) < _REMEMBERED:
                rows = self._last_rows(finished[-1][1]) | rows
            self._earlier = rows
            self._recent.extend(rows)
            self._remove_oldest()

    def write(self, decision: Decision, *, durable: bool = False) -> None:
        """Append a row; with `durable` it is on disk, and survives a power cut, when this returns.

        OutputError when it cannot be written: the file then ends with the row before, and the next row is tried anew.
        """
        self.write_encoded(decision.id, self.encode(decision), durable=durable)

    def encode(self, decision: Decision) -> bytes:
        """A row, to be written later."""
        return self._format.encode(decision)

    def write_encoded(self, id: str, row: bytes, *, durable: bool = False) -> None:
        """As `write`, for a row that was encoded already."""
        with self._lock:
            file = self._opened()
            if file.has_rows and file.size + len(row) > self._rotate_bytes:
                file = self._rotate()
            file.write_encoded(row, durable=durable)
            self._recent.append(id)

    def has(self, id: str) -> bool:
        """Whether a row with this id is among the last 1000, those from before a restart included."""
        with self._lock:
            return id in self._recent

    def earlier(self, id: str) -> Mapping[str, Any] | None:
        """The row with this id, by column, if it was written before the restart and is among the last 1000."""
        return self._earlier.get(id)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _open(self) -> RowFile[Decision]:
        try:
            return RowFile.open(self.path, self._format)
        except OtherColumnsError:
            LOG.warning("%s: another version of msc-edge wrote it; renamed to %s", self.path, move_aside(self.path))
            return RowFile.open(self.path, self._format)

    def _opened(self) -> RowFile[Decision]:
        """The open file; opened again when it was moved or removed, or when its disk was away."""
        if not self._file.is_in_place():
            self._file.close()
            try:
                self._file = self._open()
            except UsageError as error:  # another file has taken the name
                raise OutputError(str(error)) from error
        return self._file

    def _rotate(self) -> RowFile[Decision]:
        """Finish the file and begin another."""
        moment = datetime.now(UTC).replace(tzinfo=None)
        if finished := self._finished():
            # Names keep the order of the files even where the clock was set back, and none is used twice.
            moment = max(moment, finished[-1][0] + timedelta(milliseconds=1))
        name = f"{self.path.stem}.{moment.strftime(_FINISHED)[:-3]}{self.path.suffix}"
        size = self._file.size
        self._file.close()  # Windows does not rename an open file
        try:
            self.path.rename(self.path.with_name(name))
        except OSError as error:
            # Windows: another program has the file open. Rows go on into it up to twice the size.
            self._file = self._open()
            if size > 2 * self._rotate_bytes:
                raise OutputError(
                    f"cannot rename {self.path}: {error.strerror or error}; close the program that has it open"
                ) from error
            return self._file
        self._file = self._open()
        self._remove_oldest()
        return self._file

    def _last_rows(self, path: Path) -> dict[str, dict[str, Any]]:
        """The last rows of a file, by their ids."""
        with path.open("rb") as file:
            lines = deque(self._format.lines(file), maxlen=_REMEMBERED)
        rows: dict[str, dict[str, Any]] = {}
        for line in lines:
            with suppress(ValueError):  # the header, or a damaged row
                row = self._format.decode(line)
                rows[str(row["id"])] = row
        return rows

    def _finished(self) -> list[tuple[datetime, Path]]:
        """The finished files and when they were finished, the oldest first."""
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        pattern = re.compile(rf"{stem}\.(\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{{3}}){suffix}", re.ASCII)
        found = []
        for path in self.path.parent.iterdir():
            if (match := pattern.fullmatch(path.name)) and path.is_file():
                with suppress(ValueError):  # not a valid date
                    found.append((datetime.strptime(match[1], _FINISHED), path))
        return sorted(found)

    def _remove_oldest(self) -> None:
        finished = self._finished()
        for _, path in finished[: max(0, len(finished) - self._keep)]:
            with suppress(OSError):  # tried again after the next rotation
                path.unlink()
