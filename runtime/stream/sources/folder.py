"""A folder that images are written to: each file once, when it is whole, also across restarts.

A file is whole when its size and date have stayed the same for a while; the dates themselves are not trusted, for the
clock of a file server need not be ours. What cannot be decoded is given more time, for it may still be on its way, and
is then reported. The folder is looked through, not watched by the system's notifications: those
do not reach over a network share, and tell nothing of what happened while we were away.
"""

import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import UnreadableImageError
from msc_edge.image_files import IMAGE_SUFFIXES
from msc_edge.images import DecodePolicy, read_image
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.state import DoneFile, State
from msc_edge.text import valid_text

_PAUSE = 0.1  # seconds between two looks, at least
_LOOK_AGAIN = 5.0  # seconds of scoring after which the folder is looked at again
_PATIENCE = 10  # times `settle`: how long a file that cannot be decoded must stay the same to be given up
_FORGET_EVERY = 3600.0
_NAMESPACE = uuid.UUID("7f0c0a52-5d4a-4b1e-9a0e-6c1f3e1d2b10")


@dataclass(slots=True)
class _Seen:
    """A file that is not done: as it was last seen, and since when it has been so."""

    size: int
    modified: int
    since: float
    failed: bool = False
    """It could not be decoded, and is tried once more, when its patience is over."""


class FolderSource:
    """Yields the images of a folder as they come, in the order of their dates."""

    is_live = False

    def __init__(
        self, name: str, folder: Path, *, state: State, decode: Callable[[], DecodePolicy], settle: float
    ) -> None:
        """`decode`: the policy of the kit in force. `settle`: seconds that a file must stay the same to be whole."""
        self.name = name
        self._folder = folder.resolve()
        self._key = valid_text(str(self._folder))
        self._state = state
        self._decode = decode
        self._settle = settle
        self._closed = threading.Event()
        self._done = state.done_in(self._key)
        self._waiting: dict[bytes, _Seen] = {}
        self._current: DoneFile | None = None
        self._forgotten = time.monotonic()

    def frames(self, tell: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source. A folder that cannot be listed is lost, and comes back."""
        listed: bool | None = None
        count = 0
        while not self._closed.is_set():
            begun = time.monotonic()
            try:
                files = dict(_files_below(os.fsencode(self._folder)))
            except OSError as error:
                if listed is not False:
                    tell("source_lost", f"the folder cannot be listed: {error.strerror}", None)
                listed = False
                yield None
                self._closed.wait(1.0)
                continue
            if not listed:
                tell("source_up", "the folder is looked through for new images", None)
            listed = True
            looked = time.monotonic() - begun
            for relative in self._whole(files):
                frame = self._read(relative, count)
                if frame is None:
                    continue
                count += 1
                yield frame
                if self._closed.is_set():
                    return
                if time.monotonic() - begun > looked + _LOOK_AGAIN:
                    break
            self._forget(files)
            yield None
            # A folder of a hundred thousand files takes long to look through: at most a fifth of the time.
            self._closed.wait(_PAUSE if self._waiting else max(_PAUSE, 4 * looked))

    def _whole(self, files: dict[bytes, tuple[int, int]]) -> list[bytes]:
        """Files that are not done and seem whole, the oldest first."""
        moment = time.monotonic()
        for path, (size, modified) in files.items():
            if self._done.get(path) == (size, modified):
                continue
            seen = self._waiting.get(path)
            if seen is None or (seen.size, seen.modified) != (size, modified):
                self._waiting[path] = _Seen(size, modified, moment)
        for path in self._waiting.keys() - files.keys():
            del self._waiting[path]
        patience = _PATIENCE * self._settle
        ready = [
            path
            for path, seen in self._waiting.items()
            if moment - seen.since >= (patience if seen.failed else self._settle)
        ]
        return sorted(ready, key=lambda path: (self._waiting[path].modified, path))

    def _read(self, relative: bytes, index: int) -> Frame | None:
        """The image; None while it may yet become one, or when it has changed or gone meanwhile."""
        seen = self._waiting[relative]
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
        if (status.st_size, status.st_mtime_ns) != (seen.size, seen.modified):
            return None
        if error and captured - seen.since < _PATIENCE * self._settle:
            seen.failed = True
            return None
        self._current = DoneFile(self._key, relative, seen.size, seen.modified)
        what = f"{self._key}\0{relative.hex()}\0{seen.size}\0{seen.modified}"
        return Frame(
            source=self.name,
            index=index,
            time=moment,
            captured=captured,
            image=image,
            path=str(path),
            error=error,
            id=str(uuid.uuid5(_NAMESPACE, what)),
        )

    def done(self, decision: Decision) -> DoneFile | None:  # noqa: ARG002
        """See Source."""
        done = self._current
        if done:
            self._done[done.path] = (done.size, done.modified)
            self._waiting.pop(done.path, None)
        return done

    def _forget(self, files: dict[bytes, tuple[int, int]]) -> None:
        """Now and then, forget files that were taken away.

        Not where none is left that we know: that is how a network share looks that is not mounted.
        """
        if time.monotonic() - self._forgotten < _FORGET_EVERY or not files.keys() & self._done.keys():
            return
        self._forgotten = time.monotonic()
        gone = self._done.keys() - files.keys()
        self._state.forget(self._key, gone)
        for path in gone:
            del self._done[path]

    def close(self) -> None:
        """See Source."""
        self._closed.set()


def _files_below(top: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Image files in any nesting, (relative path, (size, date in nanoseconds)); hidden ones are left out.

    OSError when the top cannot be listed; folders below that cannot be are passed over. Links to folders are not
    followed: what is written to is meant.
    """
    suffixes = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)
    waiting = [top]
    while waiting:
        folder = waiting.pop()
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
                    waiting.append(entry.path)
                elif entry.name.lower().endswith(suffixes):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield os.path.relpath(entry.path, top), (status.st_size, status.st_mtime_ns)
            except OSError:  # gone since it was listed
                continue
