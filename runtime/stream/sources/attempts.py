"""The file that a folder source is working on, kept on disk: one that ends the process is not tried for ever."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from msc_edge.errors import OutputError
from msc_edge.files import written_whole
from msc_edge.runtime.stream.frame import ProcessedFile

MOST_ATTEMPTS = 2


class Attempts:
    """How often the process ended while it worked on the same file, by a crash of native code or by a watchdog.

    Not flushed to the disk, so it costs little: it survives the end of the process, and need not survive a power cut.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """`folder`: of the state. `key`: of the source."""
        self._path = folder / f"attempt-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        self._begun: list[object] = []
        self._before: list[object] = []
        self._count = 0
        with suppress(OSError, ValueError, TypeError):  # missing, or cut off by a full disk
            stored = json.loads(self._path.read_bytes())
            self._before, self._count = list(stored["file"]), int(stored["attempts"])

    def begin(self, file: ProcessedFile) -> int:
        """Record that work on a file begins. Returns how often it began before, in processes that have ended since."""
        identity: list[object] = [file.path.hex(), file.size, file.modified]
        if identity != self._begun:
            self._count = self._count if identity == self._before else 0
            self._begun = identity
            # A full disk, or none: the state reports it.
            with suppress(OutputError), written_whole(self._path, durable=False) as partial:
                partial.write_text(json.dumps({"file": identity, "attempts": self._count + 1}))
        return self._count

    def end(self) -> None:
        """The work on the file has ended, and the process has not."""
        with suppress(OSError):
            self._path.unlink()
