"""Rows on their way to a file: while its disk takes none they wait in memory, and are written later, in order."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.logs import FailureLog
from msc_edge.runtime.stream.sinks.rows import FrameRows

_AT_ONCE = 50  # rows that one call writes: those of files are flushed to the disk one by one


@dataclass(frozen=True, slots=True)
class _WaitingRow:
    id: str
    encoded: bytes
    on_written: Callable[[], None] | None


class RowBacklog:
    """The rows of one file. Safe to use from several threads. No method raises an error of the disk."""

    def __init__(self, rows: FrameRows, *, max_bytes: float) -> None:
        """`max_bytes`: of the rows in memory; the oldest beyond it are dropped."""
        self.rows = rows
        self.failure = ""
        """Why rows wait; empty while none does."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting: deque[_WaitingRow] = deque()
        self._bytes = 0
        self._dropped = 0
        self._failures = FailureLog(f"{rows.path}: rows can be written again")

    def __len__(self) -> int:
        return len(self._waiting)

    def write(self, decision: Decision, *, durable: bool) -> bool:
        """Write a row, after those that wait. False when the disk does not take it; then `write_later` keeps it.

        `durable`: it is on disk then, and a row that was written before a crash is not written again.
        """
        if durable and self.rows.has(decision.id):
            return True
        self.retry()
        with self._lock:
            if self._waiting:
                return False
            try:
                self.rows.write(decision, durable=durable)
            except OutputError as error:
                self._report_failure(error)
                return False
            self._recovered()
        return True

    def write_later(self, decision: Decision, on_written: Callable[[], None] | None) -> None:
        """Keep a row until the disk takes it. With `on_written` it is flushed then, and `on_written` is called."""
        row = _WaitingRow(decision.id, self.rows.encode(decision), on_written)
        with self._lock:
            self._waiting.append(row)
            self._bytes += len(row.encoded)
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._waiting.popleft().encoded)
                self._dropped += 1

    def retry(self) -> bool:
        """Write some of the rows that wait. False when the disk does not take the next one."""
        written: list[_WaitingRow] = []
        with self._lock:
            try:
                while self._waiting and len(written) < _AT_ONCE:
                    row = self._waiting[0]
                    self.rows.write_encoded(row.id, row.encoded, durable=row.on_written is not None)
                    written.append(self._waiting.popleft())
                    self._bytes -= len(row.encoded)
            except OutputError as error:
                self._report_failure(error)
            if written and not self._waiting:
                self._recovered()
            waits = bool(self._waiting) and len(written) < _AT_ONCE
        for row in written:
            if row.on_written:
                row.on_written()
        return not waits

    def drop(self) -> int:
        """Drop the rows that wait, because the stream ends. Their number."""
        with self._lock:
            count = len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._dropped += count
        return count

    def take_dropped(self) -> int:
        """Number of rows dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def _report_failure(self, error: OutputError) -> None:
        self.failure = str(error)
        self._failures.report_failure(f"{error}; rows wait in memory, and scoring goes on")

    def _recovered(self) -> None:
        self.failure = ""
        self._failures.recovered()
