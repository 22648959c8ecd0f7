"""Rows and saved images of the decisions of a stream, as configured."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from msc_edge.errors import OutputError
from msc_edge.runtime.results.image_result import result_from_row
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.config import ImagesConfig, StreamConfig
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.logs import LOG, FailureLog
from msc_edge.runtime.stream.sinks.image_store import ImageStore
from msc_edge.runtime.stream.sinks.rows import FrameRows


class Recorder:
    """Writes rows and saves images. Safe to use from several threads. A full disk loses rows and counts them."""

    def __init__(self, config: StreamConfig, clock: Clock | None = None) -> None:
        """Open the files. `clock` gives the age of saved images.

        UsageError for a file of another kind, OutputError for one that cannot be written.
        """
        results = config.results
        rotate = int(1e6 * results.rotate_mb)
        self._rows = [
            FrameRows(path, rotate_bytes=rotate, keep=results.keep) for path in (results.jsonl, results.csv) if path
        ]
        self._clock = clock or Clock()
        self._images = ImageStore(config.images, self._clock) if config.images.folder else None
        self._lock = threading.Lock()
        self._lost = 0
        self._images_lost = 0  # of an earlier image store
        self._reason = ""
        self._failures = FailureLog("rows can be written again")

    def use_images(self, config: ImagesConfig) -> None:
        """Save images by other options from now on. OutputError for a folder that cannot be used; nothing changes."""
        earlier, self._images = self._images, ImageStore(config, self._clock) if config.folder else None
        if earlier:
            earlier.close(0.5)
            with self._lock:
                self._images_lost += earlier.take_lost()

    def save_image(self, decision: Decision, *, wait: bool) -> Path | None:
        """Save the frame if it is to be saved; the path it will have. `wait`: until the disk has caught up."""
        images = self._images  # once: a reload may replace it at any time
        if images is None or (reason := images.reason_to_save(decision)) is None:
            return None
        return images.save(decision, reason=reason, wait=wait)

    def write(self, decision: Decision) -> None:
        """Write a row. A row that the disk does not take is lost, and counted."""
        failed = False
        for rows in self._rows:
            try:
                rows.write(decision)
            except OutputError as error:
                failed = True
                self._failures.report_failure(str(error))
                with self._lock:
                    self._lost += 1
                    self._reason = str(error)
        if not failed:
            self._failures.recovered()

    def earlier(self, id: str, frame: Frame) -> Decision | None:
        """The decision on a file whose row was written before a crash, and which was not marked as processed.

        The row stands, whatever kit and limits are active now: the event must say what the row says.
        """
        for rows in self._rows:
            if (row := rows.earlier(id)) is None:
                continue
            if row["error"] is not None:
                return Decision(id, replace(frame, error=row["error"]), None, None)
            try:
                return Decision(id, frame, result_from_row(row), None)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                LOG.warning("%s: the row of %s was edited (%s); the file is scored again", rows.path, frame.path, error)
        return None

    def write_once(self, decision: Decision) -> bool:
        """Write a row durably, unless it was written before a crash. False when the disk is full."""
        try:
            for rows in self._rows:
                if not rows.has(decision.id):
                    rows.write(decision, durable=True)
        except OutputError as error:
            self._failures.report_failure(str(error))
            return False
        self._failures.recovered()
        return True

    @property
    def is_failing(self) -> bool:
        """Whether the last rows could not be written."""
        return self._failures.failing

    def take_lost(self) -> tuple[int, Sequence[str]]:
        """Number of rows and images lost since the last call, and the reasons."""
        with self._lock:
            rows, self._lost = self._lost, 0
            images, self._images_lost = self._images_lost, 0
        reasons = [f"{rows} rows could not be written ({self._reason})"] if rows else []
        store = self._images
        images += store.take_lost() if store else 0
        if images:
            reasons.append(f"{images} images could not be saved ({store.loss_reason if store else 'saving has ended'})")
        return rows + images, reasons

    def close(self) -> None:
        """Write pending images, and close."""
        with ExitStack() as stack:
            if self._images:
                stack.callback(self._images.close, 0.5)
            for rows in self._rows:
                stack.callback(rows.close)
