"""A folder that receives image files: each file is scored once, when it is complete, also across restarts.

A file is complete when its size and date have not changed for a while. Dates are not compared with the clock: the
clock of a file server may differ. A file that cannot be decoded may still be arriving; it is retried once after a
longer wait, and then reported. The folder is listed at intervals: the notifications of operating systems do not work
on network shares, and do not cover the time before the start.
"""

import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import OutputError, UnreadableImageError
from msc_edge.image_files import IMAGE_SUFFIXES
from msc_edge.images import DecodePolicy, read_image
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Frame, ProcessedFile
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.state import State
from msc_edge.text import valid_text

_MIN_PAUSE = 0.1  # seconds between two listings
_LISTING_INTERVAL = 5.0  # seconds of scoring after which the folder is listed again
_DECODE_PATIENCE = 10  # times `settle`: how long a file that cannot be decoded must not change
_FORGET_INTERVAL = 3600.0  # seconds
_NAMESPACE = uuid.UUID("7f0c0a52-5d4a-4b1e-9a0e-6c1f3e1d2b10")

Files = dict[bytes, tuple[int, int]]  # relative path -> (size in bytes, date in nanoseconds)


@dataclass(slots=True)
class _PendingFile:
    """A file that is not processed yet, with its last known size and date."""

    size: int
    modified: int
    since: float
    """`time.monotonic()` of the last change."""
    failed: bool = False
    """Decoding has failed once."""


class FolderSource:
    """Yields the images of a folder as they arrive, oldest first."""

    is_live = False

    def __init__(
        self, name: str, folder: Path, *, state: State, decode: Callable[[], DecodePolicy], settle: float
    ) -> None:
        """`decode` gives the policy of the active kit. `settle`: seconds without a change until a file is complete."""
        self.name = name
        self._folder = folder.resolve()
        self._key = valid_text(str(self._folder))
        self._state = state
        self._decode = decode
        self._settle = settle
        self._closed = threading.Event()
        self._processed = state.processed_files(self._key)
        self._pending: dict[bytes, _PendingFile] = {}
        self._forgotten = time.monotonic()

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source. A folder that cannot be listed is lost until it can be listed again."""
        is_up: bool | None = None
        count = 0
        while not self._closed.is_set():
            started = time.monotonic()
            try:
                files = dict(_files_below(os.fsencode(self._folder)))
            except OSError as error:
                if is_up is not False:
                    on_event("source_lost", f"the folder cannot be listed: {error.strerror}", None)
                is_up = False
                yield None
                self._closed.wait(1.0)
                continue
            if not is_up:
                on_event("source_up", "watching the folder for new images", None)
            is_up = True
            listing_time = time.monotonic() - started
            for relative in self._complete(files):
                frame = self._read(relative, count)
                if frame is None:
                    continue
                count += 1
                yield frame
                self._mark_processed(frame)
                if self._closed.is_set():
                    return
                if time.monotonic() - started > listing_time + _LISTING_INTERVAL:
                    break
            self._forget_missing(files)
            yield None
            # Listing a folder of a hundred thousand files is slow. Spend at most a fifth of the time on it.
            self._closed.wait(_MIN_PAUSE if self._pending else max(_MIN_PAUSE, 4 * listing_time))

    def _complete(self, files: Files) -> list[bytes]:
        """Files that are not processed and seem complete, oldest first."""
        moment = time.monotonic()
        for path, (size, modified) in files.items():
            if self._processed.get(path) == (size, modified):
                continue
            pending = self._pending.get(path)
            if pending is None or (pending.size, pending.modified) != (size, modified):
                self._pending[path] = _PendingFile(size, modified, moment)
        for path in self._pending.keys() - files.keys():
            del self._pending[path]
        complete = [
            path
            for path, pending in self._pending.items()
            if moment - pending.since >= (_DECODE_PATIENCE if pending.failed else 1) * self._settle
        ]
        return sorted(complete, key=lambda path: (self._pending[path].modified, path))

    def _read(self, relative: bytes, index: int) -> Frame | None:
        """Read a file. None if it may still be arriving, or has changed or gone."""
        pending = self._pending[relative]
        path = Path(os.fsdecode(os.path.join(os.fsencode(self._folder), relative)))  # noqa: PTH118  (bytes)
        captured, moment = time.monotonic(), now()
        image, error = None, None
        try:
            image = read_image(path, self._decode())
        except UnreadableImageError as problem:
            error = str(problem)
        try:
            status = path.stat()
        except OSError:
            return None
        if (status.st_size, status.st_mtime_ns) != (pending.size, pending.modified):
            return None
        if error and captured - pending.since < _DECODE_PATIENCE * self._settle:
            pending.failed = True
            return None
        content = f"{self._key}\0{relative.hex()}\0{pending.size}\0{pending.modified}"
        return Frame(
            source=self.name,
            index=index,
            time=moment,
            captured=captured,
            image=image,
            path=str(path),
            error=error,
            id=str(uuid.uuid5(_NAMESPACE, content)),
            file=ProcessedFile(self._key, relative, pending.size, pending.modified),
        )

    def _mark_processed(self, frame: Frame) -> None:
        file = frame.file
        assert file is not None, "every frame of a folder is a file"
        self._processed[file.path] = (file.size, file.modified)
        self._pending.pop(file.path, None)

    def _forget_missing(self, files: Files) -> None:
        """Once an hour, forget files that were removed.

        If no known file is left, keep all: an unmounted network share looks like that.
        """
        if time.monotonic() - self._forgotten < _FORGET_INTERVAL or not files.keys() & self._processed.keys():
            return
        self._forgotten = time.monotonic()
        missing = self._processed.keys() - files.keys()
        with suppress(OutputError):  # the disk is full: in an hour
            self._state.forget(self._key, missing)
            for path in missing:
                del self._processed[path]

    def close(self) -> None:
        """See Source."""
        self._closed.set()


def _files_below(top: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Image files at any depth: (relative path, (size, date in nanoseconds)). Hidden files and folders are skipped.

    Raises OSError when `top` cannot be listed. Subfolders that cannot be listed are skipped, and links to folders are
    not followed.
    """
    suffixes = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(b".")]
        except OSError:
            if folder == top:
                raise
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(suffixes):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield os.path.relpath(entry.path, top), (status.st_size, status.st_mtime_ns)
            except OSError:  # removed since it was listed
                continue
