"""Saved frames: rejected ones, and if configured those with a warning and every n-th normal one.

Path: `<folder>/<YYYY-MM-DD>/<source>/<YYYYMMDDTHHMMSS.mmmZ>_<verdict>_<score>_<id>.<jpg or png>`, with dates and times
in UTC. The overlay with the heatmap of a rejected frame has the same name with `_overlay.jpg`; both are removed
together. A thread encodes and writes them, so that a slow disk does not delay scoring.
"""

import heapq
import queue
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from msc_edge.anomaly_map import AnomalyMap
from msc_edge.drawing import encode_image
from msc_edge.errors import UsageError, writing
from msc_edge.overlay import overlay
from msc_edge.runtime.results.formats import rounded
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.config_sections import ImagesConfig
from msc_edge.runtime.stream.frame import Decision

SaveReason = Literal["reject", "warn", "normal"]

_SUFFIXES: dict[Literal["jpg", "png"], Literal[".jpg", ".png"]] = {"jpg": ".jpg", "png": ".png"}
_OVERLAY = "_overlay"
_QUEUE_SIZE = 8  # frames; 200 MB for a 4K camera
_EXPIRY_INTERVAL = 60.0  # seconds between two searches for images that are too old
_STAMP = "%Y%m%dT%H%M%S.%fZ"  # the time in a name
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NAME_PATTERN = r"\d{8}T\d{6}\.\d{3}Z_(normal|warn|reject)_-?\d+\.\d{4}_[A-Za-z0-9_.-]{1,8}?(_overlay)?\.(jpg|png)"
_NAME = re.compile(_NAME_PATTERN, re.ASCII)
_PARTIAL = re.compile(rf"\.{_NAME_PATTERN}\.partial", re.ASCII)


class ImageStore:
    """Saves frames, and removes the oldest beyond the limits. Safe to use from several threads. Close it.

    A power cut loses the images of the last seconds: a flush to disk for each image would wear the disk.
    """

    def __init__(self, config: ImagesConfig, clock: Clock | None = None) -> None:
        """Index the folder, or create it. `clock` gives ages. OutputError when it cannot be used."""
        if config.folder is None:
            raise UsageError("[images] has no `folder`; name the folder for saved frames")
        self.folder = config.folder
        self._config = config
        self._stored = _StoredImages(
            config.folder, max_bytes=1e6 * config.max_mb, max_age=86400 * config.max_days, clock=clock or Clock()
        )
        self._queue: queue.Queue[tuple[Path, np.ndarray, AnomalyMap | None] | None] = queue.Queue(_QUEUE_SIZE)
        self._lock = threading.Lock()
        self._normal: Counter[str] = Counter()
        self._closed = False
        self._lost = self._lost_before = 0
        self._loss_reason = ""
        self._thread = threading.Thread(target=self._write_queue, name="msc-edge images", daemon=True)
        self._thread.start()

    def reason_to_save(self, decision: Decision) -> SaveReason | None:
        """Why to save this frame; None not to. Counts normal frames: call it once per frame."""
        if decision.frame.image is None or decision.verdict is None:
            return None
        if decision.verdict == "normal" and self._config.every:
            with self._lock:
                self._normal[decision.frame.source] += 1
                return "normal" if self._normal[decision.frame.source] % self._config.every == 0 else None
        if decision.verdict == "warn":
            return "warn" if self._config.warnings else None
        return "reject" if decision.verdict == "reject" else None

    def save(self, decision: Decision, *, reason: SaveReason, wait: bool = False) -> Path | None:
        """Copy the frame and queue it for writing; the path that it will have.

        None when the queue is full (for others than rejected frames: half full), or after `close`: the image counts as
        lost. With `wait`, for sources that are not live, it waits for the queue instead.
        """
        image = decision.frame.image
        if image is None:
            raise ValueError("this frame has no image")
        path = self._path_of(decision)
        while wait and self._queue.full() and not self._closed:
            time.sleep(0.005)
        with self._lock:
            if self._closed:
                return self._lose("the stream is ending")
            if self._queue.qsize() >= (_QUEUE_SIZE if reason == "reject" or wait else _QUEUE_SIZE // 2):
                return self._lose("images arrive faster than they can be written")
            self._queue.put_nowait((path, image.copy(), self._map_of(decision)))
        return path

    @property
    def lost(self) -> int:
        """Number of images that could not be saved."""
        return self._lost

    @property
    def loss_reason(self) -> str:
        """Why the last one could not be saved; "" if all were saved."""
        return self._loss_reason

    def take_lost(self) -> int:
        """Number of images lost since the last call."""
        with self._lock:
            lost, self._lost_before = self._lost - self._lost_before, self._lost
        return lost

    def close(self, timeout: float = 2.0) -> None:
        """Write the queue for at most `timeout` seconds; the rest counts as lost."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
        with suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with suppress(queue.Empty), self._lock:
            while True:
                if self._queue.get_nowait():
                    self._lose("the stream ended before it was written")
        self._queue.put_nowait(None)  # for the thread, if it is still busy

    def _map_of(self, decision: Decision) -> AnomalyMap | None:
        """The map to draw over a copy of the frame; None for a normal frame, and where overlays are turned off."""
        result = decision.result
        return result.grid_map if result and result.verdict != "normal" and self._config.overlays else None

    def _path_of(self, decision: Decision) -> Path:
        frame, result = decision.frame, decision.result
        if result is None:
            raise ValueError("this frame has no result")
        moment = frame.time.astimezone(UTC)
        stamp = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
        short_id = _as_file_name(decision.id)[:8]
        name = f"{stamp}_{result.verdict}_{rounded(result.score, 4)}_{short_id}.{self._config.format}"
        return self.folder / f"{moment:%Y-%m-%d}" / _as_file_name(frame.source) / name

    def _lose(self, reason: str) -> None:
        """Count an image as lost. Call it with the lock held."""
        self._lost += 1
        self._loss_reason = reason

    def _write_queue(self) -> None:
        while True:
            try:
                task = self._queue.get(timeout=_EXPIRY_INTERVAL)
            except queue.Empty:
                self._stored.free_space(0)
                continue
            if task is None:
                return
            path, image, anomaly_map = task
            try:
                self._write(path, encode_image(image, _SUFFIXES[self._config.format]))
                if anomaly_map is not None:
                    drawn = overlay(image, anomaly_map)
                    self._write(overlay_path(path), encode_image(drawn, ".jpg"))
            except Exception as error:  # one image must not stop the next ones
                with self._lock:
                    self._lose(f"{path.name}: {getattr(error, 'strerror', None) or error or type(error).__name__}")

    def _write(self, path: Path, data: bytes) -> None:
        self._stored.free_space(len(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._stored.add(path, len(data))


def overlay_path(image: Path) -> Path:
    """Where the overlay of a saved frame is."""
    return image.with_name(f"{image.stem}{_OVERLAY}.jpg")


class _StoredImages:
    """Index of the images in the folder; removes the oldest first. Not safe to use from several threads.

    An image and its overlay are one entry. Files with other names are neither counted nor removed.
    """

    def __init__(self, folder: Path, *, max_bytes: float, max_age: float, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_age = max_age  # seconds
        self._bytes = 0
        self._files: dict[str, dict[str, int]] = {}  # for each entry the relative paths of its files, and their sizes
        self._oldest: list[tuple[float, float, str]] = []  # heap of (seconds by the clock; time in the name; entry)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for day in _folders(folder):
                if _DAY.fullmatch(day.name):
                    for source in _folders(day):
                        self._index(source)
                    with suppress(OSError):  # it is not empty
                        day.rmdir()
        self.free_space(0)

    def _index(self, source: Path) -> None:
        for path in source.iterdir():
            if _PARTIAL.fullmatch(path.name):  # left by a process that was killed
                path.unlink(missing_ok=True)
            elif _NAME.fullmatch(path.name) and path.is_file():
                self.add(path, path.stat().st_size)
        with suppress(OSError):  # it is not empty
            source.rmdir()

    def add(self, path: Path, size: int) -> None:
        """Add an image or an overlay that was written, perhaps over another one."""
        relative = str(path.relative_to(self._folder))
        entry = str(path.relative_to(self._folder).with_name(path.stem.removesuffix(_OVERLAY)))
        if entry not in self._files:
            heapq.heappush(self._oldest, (*self._saved_at(entry), entry))
        files = self._files.setdefault(entry, {})
        self._bytes += size - files.get(relative, 0)
        files[relative] = size

    def _saved_at(self, entry: str) -> tuple[float, float]:
        """When an entry was saved: in seconds that the clock has counted, and by the wall clock, since 1970."""
        try:
            moment = datetime.strptime(Path(entry).name.partition("_")[0], _STAMP).replace(tzinfo=UTC)
        except ValueError:  # no such date: a name that another program made
            return self._clock.counted(), 0
        return self._clock.counted_at(moment.timestamp()), moment.timestamp()

    def free_space(self, size: int) -> None:
        """Remove expired images, and the oldest until `size` bytes fit. ValueError when they never fit."""
        if size > self._max_bytes:
            raise ValueError(f"it has {size / 1e6:.1f} MB, and `max_mb` of [images] is {self._max_bytes / 1e6:g}")
        expired = self._clock.counted() - self._max_age
        while self._oldest and (self._bytes + size > self._max_bytes or self._oldest[0][0] < expired):
            *_, entry = heapq.heappop(self._oldest)
            for relative, bytes_of_file in self._files.pop(entry).items():
                self._bytes -= bytes_of_file
                with suppress(OSError):  # it cannot be removed: tried again after the next start
                    (self._folder / relative).unlink(missing_ok=True)
            folder = (self._folder / entry).parent
            with suppress(OSError):  # not empty yet
                folder.rmdir()
                folder.parent.rmdir()


def _folders(folder: Path) -> list[Path]:
    """The subfolders of a folder, without links: their targets are not part of the store."""
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def _as_file_name(text: str) -> str:
    """The text as a part of a file name on any system."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text).lstrip(".") or "_"
