"""All that a decision is given to, as the configuration has it, and how failures there are counted."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sinks.image_store import ImageStore
from msc_edge.runtime.stream.sinks.rows import RowFile


class Recorder:
    """Files of rows, and saved images. Safe to use from several threads. A full disk costs rows, not the stream."""

    def __init__(self, config: StreamConfig) -> None:
        """Open them. UsageError for a file of another kind, OutputError when one cannot be written."""
        results = config.results
        rotate = int(1e6 * results.rotate_mb)
        self._rows = [
            RowFile(path, rotate_bytes=rotate, keep=results.keep) for path in (results.jsonl, results.csv) if path
        ]
        self._images = ImageStore(config.images) if config.images.folder else None
        self._lock = threading.Lock()
        self._lost = 0
        self._reason = ""
        self._troubled = False

    def save_image(self, decision: Decision, *, patient: bool) -> Path | None:
        """Save the frame if it is to be saved; where it will lie. `patient`: its source can wait for the disk."""
        if self._images is None or (why := self._images.wants(decision)) is None:
            return None
        return self._images.save(decision, why=why, patient=patient)

    def write(self, decision: Decision) -> None:
        """Write a row; one that the disk does not take is lost, and counted."""
        for rows in self._rows:
            try:
                rows.write(decision)
                self._recovered()
            except OutputError as error:
                self._say(error)
                with self._lock:
                    self._lost += 1
                    self._reason = str(error)

    def write_once(self, decision: Decision) -> bool:
        """Write a row durably, unless it stands there already from before a crash. False when the disk is full."""
        try:
            for rows in self._rows:
                if not rows.has(decision.id):
                    rows.write(decision, durable=True)
        except OutputError as error:
            self._say(error)
            return False
        self._recovered()
        return True

    def _say(self, error: OutputError) -> None:
        if not self._troubled:
            LOG.error("%s", error)
        self._troubled = True

    def _recovered(self) -> None:
        if self._troubled:
            LOG.info("rows can be written again")
        self._troubled = False

    def take_lost(self) -> tuple[int, Sequence[str]]:
        """Rows and images that were lost since this was asked last, and why."""
        with self._lock:
            rows, self._lost = self._lost, 0
        reasons = [f"{rows} rows could not be written ({self._reason})"] if rows else []
        images = self._images.take_lost() if self._images else 0
        if images and self._images:
            reasons.append(f"{images} images could not be saved ({self._images.reason})")
        return rows + images, reasons

    def close(self) -> None:
        """Write what waits, and close."""
        with ExitStack() as stack:
            if self._images:
                stack.callback(self._images.close, 0.5)
            for rows in self._rows:
                stack.callback(rows.close)
