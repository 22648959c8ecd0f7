"""What is in a watched folder: its image files, and the parts of it that cannot be listed."""

import os
import stat
import time
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from msc_edge.image_files import IMAGE_SUFFIXES
from msc_edge.runtime.stream.sources.interface import OnEvent

_RECOVERED_AFTER = 10.0  # seconds without a failure; a disk with errors may fail at every other listing
_MOST_NAMED = 3
_LONGEST = (1 << 63) - 1  # nanoseconds; what the state can hold. Some file systems have dates after the year 2262
_GONE = (FileNotFoundError, NotADirectoryError)  # removed since its folder was listed, or a link to nothing


class FileStatus(NamedTuple):
    """What `stat` says about a file."""

    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""
    changed: int
    """Nanoseconds since 1970. On Windows the time when the file was created."""
    inode: int
    """0 on Windows."""

    @property
    def identity(self) -> int:
        """What a file keeps when it grows or is renamed, and what another file mostly does not have."""
        return self.changed if os.name == "nt" else self.inode

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """From the result of `os.stat`."""
        modified, changed = (max(-_LONGEST, min(date, _LONGEST)) for date in (status.st_mtime_ns, status.st_ctime_ns))
        return cls(status.st_size, modified, changed, status.st_ino)


@dataclass(frozen=True)
class Listing:
    """The image files of a folder at any depth. All paths are relative to it."""

    files: dict[bytes, FileStatus] = field(default_factory=dict)
    unlisted: dict[bytes, str] = field(default_factory=dict)
    """Subfolders that cannot be listed and files without a status, and the reasons."""
    device: int = 0
    """Of the folder. It changes when a share or a disk is mounted there or removed."""
    is_mounted: bool = False
    """Whether a share or a disk is mounted there."""

    def may_have(self, path: bytes) -> bool:
        """Whether a file exists, or is in a part of the folder that cannot be listed."""
        separator = os.fsencode(os.sep)
        return path in self.files or any(
            path == unlisted or path.startswith(unlisted + separator) for unlisted in self.unlisted
        )


def list_folder(top: bytes) -> Listing:
    """List a folder. Hidden files and folders are left out, and links to folders are not followed.

    Raises OSError when `top` itself cannot be listed.
    """
    suffixes = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)
    listing = Listing(device=os.stat(top).st_dev, is_mounted=os.path.ismount(top))  # noqa: PTH116  (bytes)
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = [entry for entry in found if not entry.name.startswith(b".")]
        except OSError as error:
            if folder == top:
                raise
            if not isinstance(error, _GONE):
                listing.unlisted[os.path.relpath(folder, top)] = error.strerror or str(error)
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(suffixes):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        listing.files[os.path.relpath(entry.path, top)] = FileStatus.of(status)
            except OSError as error:
                if not isinstance(error, _GONE):
                    listing.unlisted[os.path.relpath(entry.path, top)] = error.strerror or str(error)
    return listing


class ListingWatch:
    """Reports when a part of a watched folder cannot be listed, and when all of it can be again."""

    def __init__(self) -> None:
        self.reason = ""
        """What cannot be listed, and why; empty when nothing is missing."""
        self._reported: set[bytes] = set()
        self._was_mounted = False
        self._failed = 0.0
        """`time.monotonic()` of the last listing with a failure."""

    def look(self, listing: Listing, on_event: OnEvent) -> None:
        """Report each part once until all have recovered. `on_event` takes `folder_incomplete`, `folder_complete`."""
        moment, unlisted = time.monotonic(), listing.unlisted
        self._was_mounted |= listing.is_mounted
        if self._was_mounted and not listing.is_mounted:  # the folder below it looks as if no image came
            unlisted = {b".": "the share or disk that was mounted here is gone", **unlisted}
        if unlisted:
            self._failed = moment
            self.reason = _sentence(unlisted)
            if new := {path: why for path, why in unlisted.items() if path not in self._reported}:
                self._reported |= new.keys()
                on_event("folder_incomplete", f"{_sentence(new)}; images there are not inspected", None)
        elif self.reason and moment - self._failed >= _RECOVERED_AFTER:
            self.reason = ""
            self._reported.clear()
            on_event("folder_complete", "all subfolders can be listed again", None)


def _sentence(unlisted: dict[bytes, str]) -> str:
    named = "; ".join(f"{os.fsdecode(path)[:200]}: {why}" for path, why in list(unlisted.items())[:_MOST_NAMED])
    others = f"; and {len(unlisted) - _MOST_NAMED} others" if len(unlisted) > _MOST_NAMED else ""
    return f"{named}{others}: cannot be listed"
