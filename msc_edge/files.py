"""Files on disk: hashes, and writing files and folders that are either complete or absent."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from msc_edge.errors import UsageError, writing
from msc_edge.left_over import exchange, hidden_beside, lock, new_locked_folder, recover

_CHUNK = 1 << 20
_NOT_REGULAR = "it is not a regular file"


def kind_of(path: str | Path) -> tuple[Literal["file", "folder"] | None, str]:
    """Whether a path is a file or a folder, with links followed; otherwise None and the operating system's reason.

    Unlike `Path.is_file` it raises no error for a name that is too long, or for a folder without permission.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:  # missing, name too long, no permission
        return None, error.strerror or str(error)
    except ValueError as error:  # a zero byte in the name
        return None, str(error)
    return ("folder" if stat.S_ISDIR(mode) else "file"), ""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read its bytes. OSError with the reason for what is no regular file, such as a pipe or a device.

    Reading a pipe or a device may never end, and even opening a pipe waits for its writer.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if not stat.S_ISREG(Path(path).stat().st_mode):  # before it is opened: that alone acts on some devices
        raise OSError(errno.EINVAL, _NOT_REGULAR)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was replaced in between
        os.close(descriptor)
        raise OSError(errno.EINVAL, _NOT_REGULAR)
    return os.fdopen(descriptor, "rb")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 lower-case hexadecimal digits, read in chunks. OSError as `open_regular`."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def written_whole(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `target`. On success it replaces `target`; on an error it is removed.

    With `durable` it is on disk then, and survives a power cut. Missing folders are created. Raises OutputError from
    the disk.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = hidden_beside(target, ".partial")
        partial.touch(exist_ok=False)
        try:
            yield partial
            if durable:
                _flush(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `target`. On success it is renamed to `target`; on an error it is removed.

    With `replace`, it takes the place of an existing `target` in one step where the file system can do that. Without
    it, an existing `target` that is not an empty folder is a UsageError. What processes have left that were killed
    meanwhile is cleaned up first; see `recover`. Raises OutputError from the disk.
    """
    with writing(target):
        recover(target)
        if target.exists() and not replace and not (target.is_dir() and not any(target.iterdir())):
            raise _exists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_locked_folder(target) as partial:
            try:
                yield partial
                for path in partial.rglob("*"):
                    if path.is_file():
                        _flush(path)
                if not replace and target.is_dir() and any(target.iterdir()):  # another process was faster
                    raise _exists(target)
                with lock(target):
                    _move_into_place(partial, target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target} exists already; choose another name, or pass --overwrite to replace it")


def _move_into_place(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
    elif exchange(partial, target):
        _remove(partial)
    else:  # a process that is killed between the two renames leaves no target; `recover` puts it back
        aside = hidden_beside(target, ".replaced")
        target.rename(aside)
        try:
            partial.rename(target)
        except OSError:
            aside.rename(target)
            raise
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Write the bytes to the disk before the rename makes them visible under the final name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
