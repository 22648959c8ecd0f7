"""The log of a stream: lines for people, or one JSON object a line for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from msc_edge.text import one_line, valid_text

LOG = logging.getLogger("msc_edge.stream")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time_of(record)} {record.levelname.lower():<7} {one_line(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _time_of(record), "level": record.levelname.lower(), "message": record.getMessage()}
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        valid = {name: valid_text(value) if isinstance(value, str) else value for name, value in entry.items()}
        return json.dumps(valid)  # in ASCII: whoever collects the log may read it in any encoding


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_to(handler: logging.Handler, form: Literal["text", "json"]) -> None:
    """Send the stream's log to a handler, and nowhere else."""
    handler.setFormatter(_Json() if form == "json" else _Text())
    LOG.handlers = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def standard_error() -> logging.Handler:
    """A handler for the terminal, or for whoever collects what a service prints."""
    return logging.StreamHandler(sys.stderr)
