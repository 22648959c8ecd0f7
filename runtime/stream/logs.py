"""The log of a stream: text lines for people, or one JSON object per line for programs."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Literal

from msc_edge.text import lines, one_line, valid_text

LOG = logging.getLogger("msc_edge.stream")
_OTHERS = logging.getLogger("msc_edge")  # what a stream uses: warnings about thresholds and files left over


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time_of(record)} {record.levelname.lower():<7} {one_line(record.getMessage())}"
        return f"{line}\n{lines(self.formatException(record.exc_info))}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _time_of(record), "level": record.levelname.lower(), "message": record.getMessage()}
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        valid = {name: valid_text(value) if isinstance(value, str) else value for name, value in entry.items()}
        return json.dumps(valid)  # ASCII: a log collector may assume any encoding


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_to(handler: logging.Handler, form: Literal["text", "json"]) -> None:
    """Send the stream's log to this handler only, and the warnings of the rest of msc-edge to it too."""
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    LOG.handlers, _OTHERS.handlers = [handler], [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def standard_error() -> logging.Handler:
    """A handler for standard error."""
    return logging.StreamHandler(sys.stderr)


class FailureLog:
    """Logs each failure once until recovery, and the recovery. Safe to use from several threads.

    A disk that is full, or a broker that is away, fails many times a second; the log must stay readable.
    """

    def __init__(self, recovery: str, *, level: int = logging.ERROR) -> None:
        """`recovery`: the message that `recovered` logs. `level`: of the failures."""
        self._recovery = recovery
        self._level = level
        self._lock = threading.Lock()
        self._reported: set[str] = set()

    @property
    def failing(self) -> bool:
        """Whether a failure was reported since the last recovery."""
        return bool(self._reported)

    def report_failure(self, message: str) -> None:
        """Log a failure, unless this message was logged since the last recovery."""
        with self._lock:
            new = message not in self._reported
            self._reported.add(message)
        if new:
            LOG.log(self._level, "%s", message)

    def recovered(self) -> None:
        """Log the recovery, if a failure was reported."""
        with self._lock:
            failing = bool(self._reported)
            self._reported.clear()
        if failing:
            LOG.info("%s", self._recovery)
