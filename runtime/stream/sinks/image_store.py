"""Frames that are saved: those that were rejected, and now and then a normal one.

They lie in `<folder>/<YYYY-MM-DD>/<source>/<YYYYMMDDTHHMMSS.mmmZ>_<verdict>_<score>_<id>.<jpg or png>`, days and times
in UTC. Encoding and writing are done by a thread of their own, so that a slow disk does not hold up scoring.
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

import cv2
import numpy as np

from msc_edge.errors import UsageError, writing
from msc_edge.runtime.results.rows import rounded
from msc_edge.runtime.stream.config import ImagesConfig
from msc_edge.runtime.stream.frame import Decision

Why = Literal["reject", "normal"]

_QUEUED = 8  # frames; of a 4K camera these are 200 MB
_LOOK_EVERY = 60.0  # seconds between looks for images that have become too old
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NAME_PATTERN = r"\d{8}T\d{6}\.\d{3}Z_(normal|warn|reject)_-?\d+\.\d{4}_[A-Za-z0-9_.-]{1,8}\.(jpg|png)"
_NAME = re.compile(_NAME_PATTERN, re.ASCII)
_PARTIAL = re.compile(rf"\.{_NAME_PATTERN}\.partial", re.ASCII)


class ImageStore:
    """Saves frames, and removes the oldest beyond the caps. Safe to use from several threads. Close it.

    What a power cut takes are the images of the last seconds: waiting for the disk after each one would wear it.
    """

    def __init__(self, config: ImagesConfig) -> None:
        """Look through the folder, which is made if it is not there. OutputError when it cannot be used."""
        if config.folder is None:
            raise UsageError("[images] has no folder; name the one where frames are to be saved")
        self.folder = config.folder
        self._config = config
        self._kept = _Kept(config.folder, max_bytes=1e6 * config.max_mb, max_age=86400 * config.max_days)
        self._queue: queue.Queue[tuple[Path, np.ndarray] | None] = queue.Queue(_QUEUED)
        self._lock = threading.Lock()
        self._normal: Counter[str] = Counter()
        self._closed = False
        self._lost = self._lost_before = 0
        self._reason = ""
        self._thread = threading.Thread(target=self._work, name="msc-edge images", daemon=True)
        self._thread.start()

    def wants(self, decision: Decision) -> Why | None:
        """Why this frame is to be saved; None when it is not. Counts the normal ones: ask once for each frame."""
        if decision.frame.image is None or decision.verdict is None:
            return None
        if decision.verdict == "normal" and self._config.every:
            with self._lock:
                self._normal[decision.frame.source] += 1
                return "normal" if self._normal[decision.frame.source] % self._config.every == 0 else None
        return "reject" if decision.verdict == "reject" else None

    def save(self, decision: Decision, *, why: Why, patient: bool = False) -> Path | None:
        """Copy the frame and have it saved soon; the path that it will have.

        None when too many wait already (of normal ones: half as many), or after `close`: the image counts as lost.
        With `patient`, for sources that can wait, it waits until there is room.
        """
        image = decision.frame.image
        if image is None:
            raise ValueError("this frame has no image")
        path = self._path_of(decision)
        while patient and self._queue.full() and not self._closed:
            time.sleep(0.005)
        with self._lock:
            if self._closed:
                return self._lose("the stream is ending")
            if self._queue.qsize() >= (_QUEUED if why == "reject" or patient else _QUEUED // 2):
                return self._lose("images come faster than they can be written")
            self._queue.put_nowait((path, image.copy()))
        return path

    @property
    def lost(self) -> int:
        """Images that were to be saved and were not."""
        return self._lost

    @property
    def reason(self) -> str:
        """Why the last one was lost; "" when none was."""
        return self._reason

    def take_lost(self) -> int:
        """How many were lost since this was asked last."""
        with self._lock:
            lost, self._lost_before = self._lost - self._lost_before, self._lost
        return lost

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most `timeout` seconds; what then still waits counts as lost."""
        end = time.monotonic() + timeout
        with self._lock:
            self._closed = True
        with suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
        self._thread.join(max(0.0, end - time.monotonic()))
        with suppress(queue.Empty), self._lock:
            while True:
                if self._queue.get_nowait():
                    self._lose("the stream ended before it was written")
        self._queue.put_nowait(None)  # for the thread, should it still be busy

    def _path_of(self, decision: Decision) -> Path:
        frame, result = decision.frame, decision.result
        if result is None:
            raise ValueError("this frame has no result")
        moment = frame.time.astimezone(UTC)
        stamp = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
        short = _plain(decision.id)[:8]
        name = f"{stamp}_{result.verdict}_{rounded(result.score, 4)}_{short}.{self._config.format}"
        return self.folder / f"{moment:%Y-%m-%d}" / _plain(frame.source) / name

    def _lose(self, reason: str) -> None:
        """Count an image as lost; the lock must be held."""
        self._lost += 1
        self._reason = reason

    def _work(self) -> None:
        while True:
            try:
                task = self._queue.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                self._kept.make_room(0)
                continue
            if task is None:
                return
            path, image = task
            try:
                self._write(path, _encoded(image, self._config.format))
            except Exception as error:  # whatever happened to this image, the next one is tried
                with self._lock:
                    self._lose(f"{path.name}: {getattr(error, 'strerror', None) or error or type(error).__name__}")

    def _write(self, path: Path, data: bytes) -> None:
        self._kept.make_room(len(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._kept.add(path, len(data))


class _Kept:
    """Which images there are, of what size; the oldest go first. Not safe to use from several threads.

    Files that are not named as ours are neither counted nor touched.
    """

    def __init__(self, folder: Path, *, max_bytes: float, max_age: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age = max_age  # seconds
        self._bytes = 0
        self._sizes: dict[str, int] = {}
        self._oldest: list[tuple[str, str]] = []  # heap of name, which begins with the time, and path in the folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for day in _folders(folder):
                if _DAY.fullmatch(day.name):
                    for source in _folders(day):
                        self._look_through(source)
                    with suppress(OSError):  # it is not empty
                        day.rmdir()
        self.make_room(0)

    def _look_through(self, source: Path) -> None:
        for path in source.iterdir():
            if _PARTIAL.fullmatch(path.name):  # of a process that was killed
                path.unlink(missing_ok=True)
            elif _NAME.fullmatch(path.name) and path.is_file():
                self.add(path, path.stat().st_size)
        with suppress(OSError):  # it is not empty
            source.rmdir()

    def add(self, path: Path, size: int) -> None:
        """An image was written, perhaps over another one."""
        place = str(path.relative_to(self._folder))
        if place not in self._sizes:
            heapq.heappush(self._oldest, (path.name, place))
        self._bytes += size - self._sizes.get(place, 0)
        self._sizes[place] = size

    def make_room(self, size: int) -> None:
        """Remove what is too old, and the oldest until `size` bytes have room. ValueError when they never can."""
        if size > self._max_bytes:
            raise ValueError(f"it has {size / 1e6:.1f} MB, and `max_mb` of [images] is {self._max_bytes / 1e6:g}")
        expired = datetime.fromtimestamp(max(0.0, time.time() - self._max_age), UTC).strftime("%Y%m%dT%H%M%S")
        while self._oldest and (self._bytes + size > self._max_bytes or self._oldest[0][0] < expired):
            _, place = heapq.heappop(self._oldest)
            self._bytes -= self._sizes.pop(place)
            path = self._folder / place
            with suppress(OSError):  # one that cannot be removed is looked at again after the next start
                path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty yet
                path.parent.rmdir()
                path.parent.parent.rmdir()


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, links left out: what lies behind them is not ours."""
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def _plain(text: str) -> str:
    """The text as a part of a file name on any system."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text).lstrip(".") or "_"


def _encoded(image: np.ndarray, kind: Literal["jpg", "png"]) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if kind == "jpg" else []
    done, data = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"it cannot be encoded as {kind}")
    return data.tobytes()
