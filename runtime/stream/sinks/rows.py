"""One row a frame, as CSV or JSON lines, in files that are rotated.

Written as the score file of `msc-edge score` is (msc_edge.runtime.results.rows): UTF-8, `\\n` line ends, what a row does not
have is empty in CSV and null in JSON lines. Each row goes to the file as soon as it is known, in one piece.
"""

import csv
import io
import json
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from msc_edge.errors import OutputError, UsageError, writing
from msc_edge.runtime.results.rows import csv_lines, json_lines, path_as_written, quoted, rounded
from msc_edge.runtime.stream.frame import Decision

COLUMNS = (
    *("id", "time", "source", "frame", "path", "position"),
    *("score", "p_value", "verdict", "nearest"),
    *("age_ms", "infer_ms", "search_ms", "total_ms", "dropped", "error"),
)
_NUMBERS: dict[str, Callable[[str], float]] = {
    **dict.fromkeys(("frame", "dropped"), int),
    **dict.fromkeys(("position", "score", "p_value", "age_ms", "infer_ms", "search_ms", "total_ms"), float),
}
_REMEMBERED = 1000  # rows that RowFile.has knows of
_LONGEST_ROW = 1 << 16  # bytes; three paths and a reason are far shorter
_FINISHED = "%Y-%m-%dT%H-%M-%S-%f"  # when, in the name of a finished file; of %f the first three digits


def csv_row(decision: Decision) -> bytes:
    """One decision as a line of CSV, with its line end."""
    return (",".join(quoted(text) for text in _texts(decision)) + "\n").encode()


def json_row(decision: Decision) -> bytes:
    """One decision as a JSON object in one line, with its line end."""
    values = {
        column: _NUMBERS.get(column, str)(text) if text else None
        for column, text in zip(COLUMNS, _texts(decision), strict=True)
    }
    return (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _texts(decision: Decision) -> list[str]:
    """The fields in the order of COLUMNS; "" for those that this decision does not have."""
    frame, result, stages = decision.frame, decision.result, decision.stages
    milliseconds = (stages.age, stages.infer, stages.search, stages.total) if stages else ()
    return [
        decision.id,
        f"{frame.time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z",
        frame.source,
        str(frame.index),
        "" if frame.path is None else path_as_written(frame.path),
        "" if frame.position is None else rounded(frame.position, 3),
        *((rounded(result.score, 6), rounded(result.p_value, 6), result.verdict) if result else ("", "", "")),
        path_as_written(result.nearest_images[0].path) if result else "",
        *([rounded(each, 1) for each in milliseconds] or [""] * 4),
        str(frame.dropped),
        "" if frame.error is None else path_as_written(frame.error),
    ]


def _csv_id(line: bytes) -> str:
    (texts,) = csv.reader(io.StringIO(line.decode(), newline=""), strict=True)
    if len(texts) != len(COLUMNS):
        raise ValueError("other columns")
    return texts[0]


def _json_id(line: bytes) -> str:
    document = json.loads(line)
    if not isinstance(document, dict) or tuple(document) != COLUMNS:
        raise ValueError("other names")
    return document["id"]


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class _Format:
    header: bytes
    begins: bytes
    """What every file of this kind begins with."""
    row: Callable[[Decision], bytes]
    lines: Callable[[BinaryIO], Iterator[bytes]]
    """Whole lines, each with its line end."""
    id: Callable[[bytes], str]
    """Of a whole line. ValueError or csv.Error when it is not one of ours."""


_HEADER = f"{','.join(COLUMNS)}\n".encode()
_FORMATS = {
    ".csv": _Format(_HEADER, _HEADER, csv_row, csv_lines, _csv_id),
    ".jsonl": _Format(b"", f'{{"{COLUMNS[0]}": "'.encode(), json_row, json_lines, _json_id),
}


class RowFile:
    """A file of rows that is appended to. Safe to use from several threads.

    When a row would take it over `rotate_bytes`, the file is renamed to `<stem>.<UTC time><suffix>` beside it and a
    new one begun; of the finished ones the newest `keep` stay.
    """

    def __init__(self, path: Path, *, rotate_bytes: int, keep: int) -> None:
        """Begin the file or go on with it; a half-written last row (of a process that was killed) is removed.

        Raises UsageError when the suffix is neither .csv nor .jsonl or when the file is of another kind (it is then
        as it was), OutputError when it cannot be written.
        """
        if path.suffix.lower() not in _FORMATS:
            raise UsageError(f"{path}: expected a name that ends in {' or '.join(_FORMATS)}")
        self.path = path
        self._form = _FORMATS[path.suffix.lower()]
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._lock = threading.Lock()
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        with writing(path):
            self._file: io.FileIO | None = self._open()
            ids, finished = self._ids(path), self._finished()
            if finished and len(ids) < _REMEMBERED:
                self._recent.extend(self._ids(finished[-1][1]))
            self._recent.extend(ids)
            self._remove_oldest()

    def write(self, decision: Decision, *, durable: bool = False) -> None:
        """Add a row; with `durable` it is on disk, and survives a power cut, when this returns.

        OutputError when it cannot be written: the file then ends with the row before, and the next row is tried anew.
        """
        row = self._form.row(decision)
        with self._lock, writing(self.path):
            file = self._in_place()
            if self._whole > len(self._form.header) and self._whole + len(row) > self._rotate_bytes:
                file = self._rotate(file)
            self._append(file, row if self._whole else self._form.header + row, durable=durable)
            self._recent.append(decision.id)

    def has(self, id: str) -> bool:
        """Whether a row with this id is among the last 1000 or so, those from before a restart included."""
        with self._lock:
            return id in self._recent

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file:
                self._file.close()

    def _in_place(self) -> io.FileIO:
        """The open file; opened anew when it was moved or removed, or when its disk went away and came back."""
        if self._file:
            with suppress(OSError, ValueError):  # ValueError: it was closed
                if os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                    return self._file
            self._file.close()
        try:
            self._file = self._open()
        except UsageError as error:
            raise OutputError(str(error)) from error
        return self._file

    def _open(self) -> io.FileIO:
        """Open the file, and end it after its last whole row. UsageError when it is of another kind."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+b", buffering=0)
        try:
            self._whole = self._end_of_rows()  # bytes
            if file.seek(0, os.SEEK_END) > self._whole:
                file.truncate(self._whole)
        except BaseException:
            file.close()
            raise
        return file

    def _end_of_rows(self) -> int:
        begins, end = self._form.begins, 0
        with self.path.open("rb") as file:
            # After a power cut, what was not yet on disk may be zeros.
            if not begins.startswith(file.read(len(begins)).rstrip(b"\0")):
                raise self._unusable(f"does not begin with {begins.decode().strip()}")
            file.seek(0)
            for line in self._form.lines(file):
                if not end and not self._form.header and self._id(line) is None:
                    raise self._unusable("has other columns")
                end += len(line)
            file.seek(end)
            rest = file.read().rstrip(b"\0")
        if len(rest) > _LONGEST_ROW:
            raise self._unusable(f"is damaged from byte {end} on")
        if not end and _is_json(rest) and self._id(rest) is None:
            raise self._unusable("has other columns")
        return end

    def _unusable(self, reason: str) -> UsageError:
        return UsageError(
            f"{self.path}: this is not a file of rows as msc-edge stream writes it: it {reason}; "
            "move it away, or give another name in [results]"
        )

    def _id(self, line: bytes) -> str | None:
        with suppress(ValueError, csv.Error):
            return self._form.id(line)
        return None

    def _ids(self, path: Path) -> list[str]:
        """The ids of the last rows of a file."""
        with path.open("rb") as file:
            lines = deque(self._form.lines(file), maxlen=_REMEMBERED)
        return [id for line in lines if line != self._form.header and (id := self._id(line)) is not None]

    def _append(self, file: io.FileIO, data: bytes, *, durable: bool) -> None:
        try:
            rest = memoryview(data)
            while rest:  # a disk that is filling up takes a part first
                rest = rest[file.write(rest) :]
            if durable:
                os.fsync(file.fileno())
        except BaseException:  # Ctrl-C too
            try:
                file.truncate(self._whole)
            except OSError:
                file.close()  # and the next write opens it anew, and cuts it then
            raise
        self._whole += len(data)

    def _rotate(self, file: io.FileIO) -> io.FileIO:
        """Finish the file and begin another."""
        moment = datetime.now(UTC).replace(tzinfo=None)
        if finished := self._finished():
            # The names have the order of the files, also where the clock was set back; and none is there twice.
            moment = max(moment, finished[-1][0] + timedelta(milliseconds=1))
        name = f"{self.path.stem}.{moment.strftime(_FINISHED)[:-3]}{self.path.suffix}"
        file.close()  # Windows renames no open file
        try:
            self.path.rename(self.path.with_name(name))
        except OSError:  # Windows: somebody looks at it. Rows go on into it for as long as that is bearable.
            self._file = self.path.open("a+b", buffering=0)
            if self._whole > 2 * self._rotate_bytes:
                raise
            return self._file
        file = self._in_place()
        self._remove_oldest()
        return file

    def _finished(self) -> list[tuple[datetime, Path]]:
        """The files that were rotated away and when, the oldest first."""
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        pattern = re.compile(rf"{stem}\.(\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{{3}}){suffix}", re.ASCII)
        found = []
        for path in self.path.parent.iterdir():
            if (match := pattern.fullmatch(path.name)) and path.is_file():
                with suppress(ValueError):  # the 31st of February is no name of ours
                    found.append((datetime.strptime(match[1], _FINISHED), path))
        return sorted(found)

    def _remove_oldest(self) -> None:
        finished = self._finished()
        for _, path in finished[: max(0, len(finished) - self._keep)]:
            with suppress(OSError):  # tried again after the next one
                path.unlink()
