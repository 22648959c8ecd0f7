"""A folder that receives image files: each file is scored once, when it is complete, also across restarts.

A file that was replaced by another one of the same name, size and date (`cp -p`, or FAT, whose dates have steps of two
seconds) is seen by the time of its last change, or by its inode. These also change when a file is not replaced, so its
content decides.

A file is complete when its size and date have not changed for a while; longer for formats that have no end marker,
whose beginning may be decoded like a whole image. Dates are not compared with the clock: the
clock of a file server may differ. A file that cannot be decoded may still be arriving; it is retried once after a
longer wait, and then reported. The folder is listed at intervals: the notifications of operating systems do not work
on network shares, and do not cover the time before the start.
"""

import contextlib
import hashlib
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

from msc_edge.errors import OutputError, UnreadableImageError
from msc_edge.image_files import IMAGE_SUFFIXES
from msc_edge.images import DecodePolicy, bytes_of, decode_image
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Frame, ProcessedFile
from msc_edge.runtime.stream.sources.attempts import MOST_ATTEMPTS, Attempts
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.sources.outage import Outage, OutageLog
from msc_edge.runtime.stream.state import State
from msc_edge.text import valid_text

_MIN_PAUSE = 0.1  # seconds between two listings
_LISTING_INTERVAL = 5.0  # seconds of scoring after which the folder is listed again
_END_MARKED = (b".jpg", b".jpeg", b".png", b".webp")  # a file that is not whole cannot be decoded
_UNMARKED_PATIENCE = 4  # times `settle`, for other formats
_DECODE_PATIENCE = 10  # times `settle`: how long a file that cannot be decoded must not change
_FORGET_INTERVAL = 3600.0  # seconds
_NAMESPACE = uuid.UUID("7f0c0a52-5d4a-4b1e-9a0e-6c1f3e1d2b10")


class FileStatus(NamedTuple):
    """What `stat` says about a file."""

    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""
    changed: int
    """Nanoseconds since 1970."""
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """From the result of `os.stat`."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


Files = dict[bytes, FileStatus]  # by their paths, relative to the folder


@dataclass(slots=True)
class _KnownFile:
    """A file that was processed."""

    size: int
    modified: int
    digest: bytes = b""
    """Of its content; empty if it is not known."""
    changed: int | None = None
    inode: int | None = None
    """None: not known, because another run of msc-edge processed it. It may differ after a disk was mounted again."""

    def may_differ(self, status: FileStatus) -> bool:
        """Whether the file may have been replaced since. Learns what was not known."""
        if (self.size, self.modified) != (status.size, status.modified):
            return True
        self.changed = status.changed if self.changed is None else self.changed
        self.inode = status.inode if self.inode is None else self.inode
        return bool(self.digest) and (self.changed, self.inode) != (status.changed, status.inode)


@dataclass(slots=True)
class _PendingFile:
    """A file that is not processed yet."""

    status: FileStatus
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
        self._processed = {
            path: _KnownFile(file.size, file.modified, file.digest, file.changed or None)
            for path, file in state.processed_files(self._key).items()
        }
        self._attempts = Attempts(state.folder, self._key)
        self._pending: dict[bytes, _PendingFile] = {}
        self._forgotten = time.monotonic()
        self.outage: Outage | None = None
        self._outage_log = OutageLog(name)

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source. A folder that cannot be listed is lost until it can be listed again."""
        try:
            yield from self._watch(on_event)
        except BaseException:
            self._attempts.abort()
            raise

    def _watch(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        is_up, count = False, 0
        while not self._closed.is_set():
            started = time.monotonic()
            try:
                files = dict(_files_below(os.fsencode(self._folder)))
            except OSError as error:
                is_up = False
                self._lose(f"the folder cannot be listed: {error.strerror}", on_event)
                yield None
                self._closed.wait(1.0)
                continue
            if not is_up:
                self._outage_log.clear()
                on_event("source_up", "watching the folder for new images", None)
            is_up, self.outage = True, None
            listing_time = time.monotonic() - started
            for relative in self._complete(files):
                if self._closed.is_set():
                    break
                frame = self._read(relative, count)
                if frame is None:
                    self._attempts.end()
                    continue
                count += 1
                yield frame
                self._attempts.end()
                self._mark_processed(frame)
                if time.monotonic() - started > listing_time + _LISTING_INTERVAL:
                    break
            self._forget_missing(files)
            yield None
            # Listing a folder of a hundred thousand files is slow. Spend at most a fifth of the time on it.
            self._closed.wait(_MIN_PAUSE if self._pending else max(_MIN_PAUSE, 4 * listing_time))

    def _lose(self, reason: str, on_event: OnEvent) -> None:
        if self.outage is None:
            self.outage = Outage("lost", reason)
            on_event("source_lost", reason, None)
        self.outage = replace(self.outage, reason=reason)  # the reason may change
        self._outage_log.report(self.outage)

    def _complete(self, files: Files) -> list[bytes]:
        """Files that are not processed and seem complete, oldest first. New ones before those that were replaced."""
        moment = time.monotonic()
        for path, status in files.items():
            known = self._processed.get(path)
            if known is not None and not known.may_differ(status):
                continue
            pending = self._pending.get(path)
            if pending is None or pending.status != status:
                self._pending[path] = _PendingFile(status, moment)
        for path in self._pending.keys() - files.keys():
            del self._pending[path]
        complete = [
            path
            for path, pending in self._pending.items()
            if moment - pending.since >= _patience(path, pending) * self._settle
        ]
        return sorted(complete, key=lambda path: (path in self._processed, self._pending[path].status.modified, path))

    def _read(self, relative: bytes, index: int) -> Frame | None:
        """Read a file. None if it may still be arriving, has changed or gone, or was not replaced."""
        pending, known = self._pending[relative], self._processed.get(relative)
        path = Path(os.fsdecode(os.path.join(os.fsencode(self._folder), relative)))  # noqa: PTH118  (bytes)
        captured, moment = time.monotonic(), now()
        image, error, digest = None, None, b""
        ended = self._attempts.begin(ProcessedFile(self._key, relative, *pending.status[:2]))
        try:
            if ended >= MOST_ATTEMPTS:
                raise UnreadableImageError(f"the process ended {ended} times while it worked on this file")
            data = bytes_of(path)
            digest = hashlib.blake2b(data.data, digest_size=16).digest()
            if known and known.digest == digest and (known.size, known.modified) == pending.status[:2]:
                self._accept(relative, pending.status)
                return None
            image = decode_image(data, self._decode())
        except UnreadableImageError as problem:
            error = str(problem)
        try:
            status = FileStatus.of(path.stat())
        except OSError:
            return None
        if status != pending.status:
            return None
        if error and ended < MOST_ATTEMPTS and captured - pending.since < _DECODE_PATIENCE * self._settle:
            pending.failed = True
            return None
        content = f"{self._key}\0{relative.hex()}\0{status.size}\0{status.modified}\0{digest.hex()}"
        return Frame(
            source=self.name,
            index=index,
            time=moment,
            captured=captured,
            image=image,
            path=str(path),
            error=error,
            id=str(uuid.uuid5(_NAMESPACE, content)),
            file=ProcessedFile(self._key, relative, status.size, status.modified, status.changed, digest),
        )

    def _mark_processed(self, frame: Frame) -> None:
        file = frame.file
        assert file is not None, "every frame of a folder is a file"
        inode = self._pending.pop(file.path).status.inode if file.path in self._pending else None
        self._processed[file.path] = _KnownFile(file.size, file.modified, file.digest, file.changed, inode)

    def _accept(self, path: bytes, status: FileStatus) -> None:
        """Remember that a processed file has another ctime or inode, and the same content."""
        known = self._processed[path]
        known.changed, known.inode = status.changed, status.inode
        del self._pending[path]
        with contextlib.suppress(OutputError):  # else its content is compared again after a restart
            self._state.record(
                [], file=ProcessedFile(self._key, path, known.size, known.modified, status.changed, known.digest)
            )

    def _forget_missing(self, files: Files) -> None:
        """Once an hour, forget files that were removed.

        If no known file is left, keep all: an unmounted network share looks like that.
        """
        if time.monotonic() - self._forgotten < _FORGET_INTERVAL or not files.keys() & self._processed.keys():
            return
        self._forgotten = time.monotonic()
        missing = self._processed.keys() - files.keys()
        with contextlib.suppress(OutputError):  # the disk is full: in an hour
            self._state.forget(self._key, missing)
            for path in missing:
                del self._processed[path]

    def scored(self) -> None:
        """See Source."""
        self._attempts.end()

    def close(self) -> None:
        """See Source."""
        self._closed.set()
        self._attempts.close()


def _patience(path: bytes, pending: _PendingFile) -> int:
    """How long a file must not change, in units of `settle`."""
    if pending.failed:
        return _DECODE_PATIENCE
    return 1 if path.lower().endswith(_END_MARKED) else _UNMARKED_PATIENCE


def _files_below(top: bytes) -> Iterator[tuple[bytes, FileStatus]]:
    """Image files at any depth: (relative path, status). Hidden files and folders are skipped.

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
                        yield os.path.relpath(entry.path, top), FileStatus.of(status)
            except OSError:  # removed since it was listed
                continue
