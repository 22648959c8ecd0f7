"""Rows and saved images of the decisions of a stream, as configured."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from msc_edge.runtime.results.image_result import result_from_row
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.config_sections import ImagesConfig
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sinks.image_store import ImageStore
from msc_edge.runtime.stream.sinks.row_backlog import RowBacklog
from msc_edge.runtime.stream.sinks.rows import FrameRows

_MAX_IN_MEMORY = 16e6  # bytes of rows that wait for the disk, for each file: ten thousands of rows


class Recorder:
    """Writes rows and saves images. Safe to use from several threads. Rows wait in memory for a full disk."""

    def __init__(
        self, config: StreamConfig, clock: Clock | None = None, *, max_in_memory: float = _MAX_IN_MEMORY
    ) -> None:
        """Open the files. `clock` gives the age of saved images. `max_in_memory`: bytes of the rows that wait.

        UsageError for a file of another kind, OutputError for one that cannot be written.
        """
        results = config.results
        rotate = int(1e6 * results.rotate_mb)
        self._backlogs = [
            RowBacklog(FrameRows(path, rotate_bytes=rotate, keep=results.keep), max_bytes=max_in_memory)
            for path in (results.jsonl, results.csv)
            if path
        ]
        self._clock = clock or Clock()
        self._images = ImageStore(config.images, self._clock) if config.images.folder else None
        self._lock = threading.Lock()
        self._images_lost = 0  # of an earlier image store

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

    def write(self, decision: Decision, *, durable: bool = False) -> bool:
        """Write a row to each file, after those that wait. False when a disk does not take it: see `write_later`.

        `durable`: it is on disk then, and a row that was written before a crash is not written again.
        """
        written = [backlog.write(decision, durable=durable) for backlog in self._backlogs]  # all are tried
        return all(written)

    def write_later(self, decision: Decision, on_written: Callable[[], None] | None = None) -> None:
        """Keep a row for the files that do not have it yet. `on_written` is called when all of them have it durably.

        It may be called from another thread, and is not if the row is dropped.
        """
        missing = [backlog for backlog in self._backlogs if not backlog.rows.has(decision.id)]
        remaining = len(missing)

        def written() -> None:
            nonlocal remaining
            with self._lock:
                remaining -= 1
                last = remaining == 0
            if last and on_written:
                on_written()

        for backlog in missing:
            backlog.write_later(decision, written if on_written else None)

    def retry(self) -> None:
        """Write some of the rows that wait."""
        for backlog in self._backlogs:
            backlog.retry()

    def drop_waiting(self, *, timeout: float) -> int:
        """Write the rows that wait, for at most `timeout` seconds, and drop the rest. Number of those."""
        deadline = time.monotonic() + timeout
        for backlog in self._backlogs:
            while backlog and backlog.retry() and time.monotonic() < deadline:
                pass
        return sum(backlog.drop() for backlog in self._backlogs)

    @property
    def waiting(self) -> int:
        """Number of rows that wait in memory."""
        return sum(len(backlog) for backlog in self._backlogs)

    @property
    def failure(self) -> str:
        """Why rows wait; empty while none does."""
        return "; ".join(backlog.failure for backlog in self._backlogs if backlog.failure)

    def earlier(self, id: str, frame: Frame) -> Decision | None:
        """The decision on a file whose row was written before a crash, and which was not marked as processed.

        The row stands, whatever kit and limits are active now: the event must say what the row says.
        """
        for rows in (backlog.rows for backlog in self._backlogs):
            if (row := rows.earlier(id)) is None:
                continue
            if row["error"] is not None:
                return Decision(id, replace(frame, error=row["error"]), None, None)
            try:
                return Decision(id, frame, result_from_row(row), None)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                LOG.warning("%s: the row of %s was edited (%s); the file is scored again", rows.path, frame.path, error)
        return None

    def take_lost(self) -> tuple[int, Sequence[str]]:
        """Number of rows and images lost since the last call, and the reasons."""
        rows = sum(backlog.take_dropped() for backlog in self._backlogs)
        with self._lock:
            images, self._images_lost = self._images_lost, 0
        reasons = [f"{rows} rows could not be written ({self.failure})"] if rows else []
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
            for backlog in self._backlogs:
                stack.callback(backlog.rows.close)
