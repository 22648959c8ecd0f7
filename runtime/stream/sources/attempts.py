"""The file that a folder source is working on, kept on disk: one that ends the process is not tried for ever.

The work is decoding and scoring. What follows, such as writing the row, is not part of it: it may wait for a disk, and
a process that is killed meanwhile was not ended by the file.
"""

import hashlib
import json
import threading
import time
from contextlib import suppress
from pathlib import Path

from msc_edge.errors import OutputError
from msc_edge.files import written_whole
from msc_edge.runtime.stream.frame import ProcessedFile

MOST_ATTEMPTS = 2
_HANGS_AFTER = 30.0  # seconds of work on one file after which a stop on request is the fault of the file, too
_MOST_REMEMBERED = 100  # files that ended a process and were not worked on to the end since

_Identity = tuple[str, int, int]  # path in hexadecimal, size, date


class Attempts:
    """How often the process ended while it worked on a file, by a crash of native code, for memory, or by a watchdog.

    Not flushed to the disk, so it costs little: it survives the end of the process, and need not survive a power cut.
    Safe to use from several threads.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """`folder`: of the state. `key`: of the source."""
        self._path = folder / f"attempt-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        self._lock = threading.Lock()
        self._closed = False
        self._working: _Identity | None = None
        self._began = 0.0
        self._ended: dict[_Identity, int] = {}
        damaged = (ValueError, TypeError, LookupError, OverflowError, RecursionError)  # cut off by a full disk
        with suppress(OSError, *damaged):
            stored = json.loads(self._path.read_bytes())
            self._ended = {_identity(file): int(count) for file, count in stored["ended"]}
            if stored["working"] is not None:
                file = _identity(stored["working"])
                self._ended[file] = self._ended.pop(file, 0) + 1  # the latest at the end
        self._ended = dict(list(self._ended.items())[-_MOST_REMEMBERED:])

    def begin(self, file: ProcessedFile) -> int:
        """Record that work on a file begins. Returns how many processes ended during it.

        After MOST_ATTEMPTS nothing is recorded: the caller must not work on it, and a restart must not either.
        """
        identity = (file.path.hex(), file.size, file.modified)
        with self._lock:
            ended = self._ended.get(identity, 0)
            if ended < MOST_ATTEMPTS and not self._closed:
                self._working, self._began = identity, time.monotonic()
                self._write()
            return ended

    def end(self) -> None:
        """The work on the file has ended, and the process has not."""
        with self._lock:
            if self._working is not None:
                self._ended.pop(self._working, None)
                self._working = None
                self._write()

    def abort(self) -> None:
        """An internal error ends the work, and soon the process: what is recorded stays."""
        with self._lock:
            self._closed, self._working = True, None

    def close(self) -> None:
        """The process ends on request, which is no fault of the file it works on, unless that work hangs."""
        with self._lock:
            self._closed = True
            if self._working is not None and time.monotonic() - self._began < _HANGS_AFTER:
                self._working = None
                self._write()

    def _write(self) -> None:
        # A full disk, or none: the state reports it.
        if self._working is None and not self._ended:
            with suppress(OSError):
                self._path.unlink()
            return
        record = {"working": self._working, "ended": list(self._ended.items())}
        with suppress(OutputError), written_whole(self._path, durable=False) as partial:
            partial.write_text(json.dumps(record))


def _identity(stored: list[object]) -> _Identity:
    path, size, modified = stored
    return str(path), int(str(size)), int(str(modified))
