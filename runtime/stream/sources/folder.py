"""A folder that receives image files: each file is scored once, when it is complete, also across restarts.

A file that was replaced by another one of the same name, size and date (`cp -p`, or FAT, whose dates have steps of two
seconds) is seen by the time of its last change, or by its inode. These also change when a file is not replaced, so its
content decides.

When a file is complete: see `arrivals`. A file that cannot be decoded may still be arriving; it is retried once after a
longer wait, and then reported. The folder is listed at intervals: the notifications of operating systems do not work
on network shares, and do not cover the time before the start.
"""

import contextlib
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

from msc_edge.errors import OutputError, UnreadableImageError
from msc_edge.images import DecodePolicy, bytes_of, decode_image
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Frame, ProcessedFile
from msc_edge.runtime.stream.sources.arrivals import DECODE_PATIENCE, Arrivals, KnownFile, LostFile
from msc_edge.runtime.stream.sources.attempts import MOST_ATTEMPTS, Attempts
from msc_edge.runtime.stream.sources.folder_listing import FileStatus, Listing, ListingWatch, list_folder
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.sources.outage import Outage, OutageLog
from msc_edge.runtime.stream.state import State
from msc_edge.text import valid_text

_MIN_PAUSE = 0.1  # seconds between two listings
_LISTING_INTERVAL = 5.0  # seconds of scoring after which the folder is listed again
_FORGET_INTERVAL = 3600.0  # seconds
_NAMESPACE = uuid.UUID("7f0c0a52-5d4a-4b1e-9a0e-6c1f3e1d2b10")


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
            path: KnownFile(file.size, file.modified, file.digest, file.changed or None)
            for path, file in state.processed_files(self._key).items()
        }
        self._attempts = Attempts(state.folder, self._key)
        self._arrivals = Arrivals(os.fsencode(self._folder), self._processed, settle=settle)
        self._listing_watch = ListingWatch()
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
                listing = list_folder(os.fsencode(self._folder))
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
            self._listing_watch.look(listing, on_event)
            moment = time.monotonic()
            listing_time = moment - started
            for lost in self._arrivals.update(listing, moment):
                yield self._lost_frame(lost, count)
                count += 1
            for relative in self._arrivals.complete(moment):
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
            self._forget_missing(listing)
            yield None
            # Listing a folder of a hundred thousand files is slow. Spend at most a fifth of the time on it.
            self._closed.wait(_MIN_PAUSE if self._arrivals else max(_MIN_PAUSE, 4 * listing_time))

    def _lose(self, reason: str, on_event: OnEvent) -> None:
        if self.outage is None:
            self.outage = Outage("lost", reason)
            on_event("source_lost", reason, None)
        self.outage = replace(self.outage, reason=reason)  # the reason may change
        self._outage_log.report(self.outage)

    def _lost_frame(self, lost: LostFile, index: int) -> Frame:
        """A file that cannot be read any more. It has no `file`: another one may have its path already."""
        return Frame(
            source=self.name,
            index=index,
            time=now(),
            captured=time.monotonic(),
            image=None,
            path=str(self._path_of(lost.path)),
            error=lost.reason,
        )

    def _path_of(self, relative: bytes) -> Path:
        return Path(os.fsdecode(os.path.join(os.fsencode(self._folder), relative)))  # noqa: PTH118  (bytes)

    def _read(self, relative: bytes, index: int) -> Frame | None:
        """Read a file. None if it may still be arriving, has changed or gone, or was not replaced."""
        pending, known = self._arrivals[relative], self._processed.get(relative)
        path = self._path_of(relative)
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
        if error and ended < MOST_ATTEMPTS and captured - pending.since < DECODE_PATIENCE * self._settle:
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
        pending = self._arrivals.pop(file.path)
        inode = pending.status.inode if pending else None
        self._processed[file.path] = KnownFile(file.size, file.modified, file.digest, file.changed, inode)

    def _accept(self, path: bytes, status: FileStatus) -> None:
        """Remember that a processed file has another ctime or inode, and the same content."""
        known = self._processed[path]
        known.changed, known.inode = status.changed, status.inode
        self._arrivals.pop(path)
        with contextlib.suppress(OutputError):  # else its content is compared again after a restart
            self._state.update(ProcessedFile(self._key, path, known.size, known.modified, status.changed, known.digest))

    def _forget_missing(self, listing: Listing) -> None:
        """Once an hour, forget files that were removed.

        If no known file is left, keep all: an unmounted network share looks like that.
        """
        if time.monotonic() - self._forgotten < _FORGET_INTERVAL or not listing.files.keys() & self._processed.keys():
            return
        self._forgotten = time.monotonic()
        missing = [path for path in self._processed if not listing.may_have(path)]
        with contextlib.suppress(OutputError):  # the disk is full: in an hour
            self._state.forget(self._key, missing)
            for path in missing:
                del self._processed[path]

    @property
    def partial_outage(self) -> str:
        """See Source."""
        return self._listing_watch.reason

    def scored(self) -> None:
        """See Source."""
        self._attempts.end()

    def close(self) -> None:
        """See Source."""
        self._closed.set()
        self._attempts.close()
