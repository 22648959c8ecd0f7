"""Files on disk: hashing, and writing so that what stands there is whole or absent."""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from msc_edge.errors import UsageError, writing

_CHUNK = 1 << 20
ASIDE = ".replaced"  # the ending of what is being replaced, hidden beside it


def kind_of(path: str | Path) -> tuple[Literal["file", "folder"] | None, str]:
    """What a path names, links followed; where that cannot be told, None and the operating system's reason.

    `Path.is_file` and its like raise for a name that is too long, or below a folder that may not be entered.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:  # missing, too long a name, no permission
        return None, error.strerror or str(error)
    except ValueError as error:  # a zero byte in the name
        return None, str(error)
    return ("folder" if stat.S_ISDIR(mode) else "file"), ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 lower-case hexadecimal digits, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; on success it is renamed over `target`, else removed."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _beside(target)
        partial.touch(exist_ok=False)
        try:
            yield partial
            _flush(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `target`; on success it takes the name `target`, else it is removed.

    `replace` lets an existing `target` be replaced: the old folder is moved aside first, and removed only when
    the new one stands. Without it an existing, non-empty `target` is a UsageError.
    """
    with writing(target):
        if target.exists() and not replace and not (target.is_dir() and not any(target.iterdir())):
            raise _exists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _beside(target)
        partial.mkdir()
        try:
            yield partial
            for path in partial.rglob("*"):
                if path.is_file():
                    _flush(path)
            if not replace and target.is_dir() and any(target.iterdir()):  # another process was quicker
                raise _exists(target)
            _move_into_place(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target} exists already; choose another name, or pass --overwrite to replace it")


def _beside(target: Path) -> Path:
    # Not tempfile: what it creates only its owner can read, and a kit is for the other users of the factory PC too.
    return target.parent / f".{target.name[:40]}.{secrets.token_hex(6)}.partial"


def _move_into_place(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    aside = partial.with_suffix(ASIDE)  # a process that is killed between the two renames leaves it; Kit.open tells
    target.rename(aside)
    try:
        partial.rename(target)
    except OSError:
        aside.rename(target)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Ask the disk to hold the bytes before the rename makes them visible under the final name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
