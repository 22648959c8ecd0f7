"""The files of a watched folder that are not processed yet: which are complete, and which were lost before.

A file is complete when its size and date have not changed for a while; longer for formats that have no end marker,
whose beginning may be decoded like a whole image. Dates are not compared with the clock: the clock of a file server
may differ.

A file that is removed or replaced before it is complete is a part that was not inspected. One that grows or is renamed
is not: writers do that. The inode tells them apart, and bytes in the middle and at the end of what was there before: a
writer that goes on adds to them or fills holes, another image has other ones. Only what two listings show can be known:
docs/operate.md states the limits.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from msc_edge.files import open_regular
from msc_edge.runtime.stream.sources.folder_listing import FileStatus, Listing

DECODE_PATIENCE = 10  # times `settle`: how long a file that cannot be decoded must not change
_END_MARKED = (b".jpg", b".jpeg", b".png", b".webp")  # a file that is not whole cannot be decoded
_UNMARKED_PATIENCE = 4  # times `settle`, for other formats
_SAMPLE = 4096  # bytes; both samples together cover any file of up to twice as many, except its header
_MOST_SAMPLED = 100  # files that are read after one listing: a large backlog must not delay the first image


@dataclass(slots=True)
class KnownFile:
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
class PendingFile:
    """A file that is not processed yet."""

    status: FileStatus
    since: float
    """`time.monotonic()` of the last change."""
    device: int = 0
    """See Listing."""
    sample: bytes | None = None
    """Of its content; None if it was not read."""
    scored_before: bool = False
    """Size and date are those of the file that was processed under this path: mostly the same one, touched."""
    failed: bool = False
    """Decoding has failed once."""


class LostFile(NamedTuple):
    """A file that was not processed and is not there any more."""

    path: bytes
    reason: str


class Arrivals:
    """The files that are not processed yet. Call `update` with each listing."""

    def __init__(self, folder: bytes, processed: Mapping[bytes, KnownFile], *, settle: float) -> None:
        """`processed`: the files that are not to be processed again. `settle`: see FolderSource."""
        self._folder = folder
        self._processed = processed
        self._settle = settle
        self._pending: dict[bytes, PendingFile] = {}
        self._listing = Listing()
        self._samples_left = 0

    def __bool__(self) -> bool:
        return bool(self._pending)

    def __getitem__(self, path: bytes) -> PendingFile:
        return self._pending[path]

    def pop(self, path: bytes) -> PendingFile | None:
        """Remove a file that was processed."""
        return self._pending.pop(path, None)

    def update(self, listing: Listing, moment: float) -> list[LostFile]:
        """Take a listing of `time.monotonic()`. Returns the files that were lost since the one before."""
        self._listing, self._samples_left = listing, _MOST_SAMPLED
        gone: list[tuple[bytes, PendingFile]] = []
        for path, status in listing.files.items():
            pending, known = self._pending.get(path), self._processed.get(path)
            if pending is not None and pending.status == status:
                pending.device = listing.device
                continue
            if pending is not None and not self._is_same(pending, path, status, renamed=False):
                gone.append((path, pending))
            if known is None or known.may_differ(status):
                touched = known is not None and (known.size, known.modified) == (status.size, status.modified)
                sample = None if touched else self._first_sample(path, status.size)
                self._pending[path] = PendingFile(status, moment, listing.device, sample, touched)
            elif pending is not None:
                del self._pending[path]
        # Files of another device are not removed: it is not mounted now.
        for path in [path for path in self._pending if not listing.may_have(path)]:
            if self._pending[path].device != listing.device:
                continue
            gone.append((path, self._pending.pop(path)))
        return self._lost(gone, listing) if gone else []

    def complete(self, moment: float) -> list[bytes]:
        """Files that seem complete, oldest first. New ones before those that were replaced."""
        paths = [
            path
            for path, pending in self._pending.items()
            if path in self._listing.files and moment - pending.since >= patience(path, pending) * self._settle
        ]
        return sorted(paths, key=lambda path: (path in self._processed, self._pending[path].status.modified, path))

    def _lost(self, gone: list[tuple[bytes, PendingFile]], listing: Listing) -> list[LostFile]:
        """Those of the files that were not renamed and that had an image that was not scored."""
        places: dict[int, list[bytes]] = {}
        for path, status in listing.files.items():
            places.setdefault(status.identity, []).append(path)
        lost = []
        for path, pending in gone:
            if pending.status.size == 0 or pending.scored_before:
                continue
            others = [other for other in places.get(pending.status.identity, []) if other != path]
            if any(self._is_same(pending, other, listing.files[other], renamed=True) for other in others):
                continue
            what = "replaced by another image" if path in listing.files else "removed or moved away"
            seconds = patience(path, pending) * self._settle
            remedy = f"leave each image unchanged for longer than {seconds:g} s, or lower `settle`"
            lost.append(LostFile(path, f"it was {what} before it could be read; {remedy}"))
        return lost

    def _is_same(self, pending: PendingFile, path: bytes, status: FileStatus, *, renamed: bool) -> bool:
        """Whether the file at a path is the one that was seen before, perhaps grown since."""
        before = pending.status
        if before.identity != status.identity:
            return False
        # Many systems give the inode of a removed file to the next one.
        if pending.sample is not None and (now := self._sample(path, before.size)) is not None:
            return all(byte in (0, other) for byte, other in zip(pending.sample, now, strict=True))
        return not renamed or status.size > before.size or before[:2] == status[:2]

    def _first_sample(self, path: bytes, size: int) -> bytes | None:
        # On Windows a file that is open here cannot be renamed by the program that writes it.
        if self._samples_left <= 0 or os.name == "nt":
            return None
        self._samples_left -= 1
        return self._sample(path, size)

    def _sample(self, path: bytes, size: int) -> bytes | None:
        """Bytes from the middle and the end of the first `size` bytes of a file; zeros where it is shorter now.

        None if it cannot be read. Without the first half: writers complete a header at the end.
        """
        middle = size // 2
        with suppress(OSError), open_regular(os.fsdecode(os.path.join(self._folder, path))) as file:  # noqa: PTH118
            sample = b""
            for start in (middle, max(middle, size - _SAMPLE)):
                length = min(_SAMPLE, size - start)
                file.seek(start)
                sample += file.read(length).ljust(length, b"\0")
            return sample
        return None


def patience(path: bytes, pending: PendingFile) -> int:
    """How long a file must not change, in units of `settle`."""
    if pending.failed:
        return DECODE_PATIENCE
    return 1 if path.lower().endswith(_END_MARKED) else _UNMARKED_PATIENCE
