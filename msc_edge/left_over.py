"""What a process leaves that is killed while it writes a folder, and how the next one cleans up.

A folder is written under a hidden name beside its place, `.NAME.DIGITS.partial`, and then exchanged with the old one.
Where the file system cannot exchange two names in one step, the old folder is called `.NAME.DIGITS.replaced` between
two renames. The writer holds a lock on each hidden folder, which ends with the process: without a lock it is left over.
"""

import ctypes
import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from msc_edge.text import one_line

if sys.platform != "win32":
    import fcntl

Suffix = Literal[".partial", ".replaced"]

_LOG = logging.getLogger("msc_edge")
_NO_DIRECTORY, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <fcntl.h> and <stdio.h>
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def hidden_beside(target: Path, suffix: Suffix) -> Path:
    """A new hidden name in the folder of `target`, by which `recover` finds it."""
    # Avoid tempfile: only the owner can read what it creates, and other users of the PC need the kit too.
    return target.parent / f"{_prefix(target.name)}{secrets.token_hex(6)}{suffix}"


def _prefix(name: str) -> str:
    """How the hidden names of a target begin. Two long names may differ in their ends only."""
    return f".{name[:40]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def hidden_folders(target: Path, suffix: Suffix) -> list[Path]:
    """The hidden folders of a target, in use or left over, the latest one last. Empty where none can be listed."""
    pattern = re.compile(rf"{re.escape(_prefix(target.name))}[0-9a-f]{{12}}{re.escape(suffix)}")
    with suppress(OSError, ValueError), os.scandir(target.parent) as entries:
        found = [each for each in entries if pattern.fullmatch(each.name) and each.is_dir(follow_symlinks=False)]
        return [
            Path(each.path) for each in sorted(found, key=lambda each: each.stat(follow_symlinks=False).st_ctime_ns)
        ]
    return []


@contextmanager
def new_locked_folder(target: Path) -> Iterator[Path]:
    """Create a hidden folder beside `target`, with a lock until the end. OSError where it cannot be created."""
    while True:
        with ExitStack() as stack:
            folder = hidden_beside(target, ".partial")
            folder.mkdir()
            locked = stack.enter_context(lock(folder))
            if locked is False or not folder.exists():  # another process took it for left over just now
                continue
            yield folder
            return


@contextmanager
def lock(folder: Path) -> Iterator[bool | None]:
    """Lock a folder, also under later names. Yield False where it is locked already; None where it cannot be locked."""
    if sys.platform == "win32":
        yield None
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken: bool | None = True
        except BlockingIOError:
            taken = False
        except OSError:  # this file system has no locks for folders
            taken = None
        yield taken
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step. False where the system or the file system cannot; OSError from the disk."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an old C library
        return False
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if renameat2(_NO_DIRECTORY, os.fsencode(one), _NO_DIRECTORY, os.fsencode(other), _EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


def recover(target: Path) -> None:
    """Clean up after processes that were killed while they wrote the folder `target`, and log what was done.

    Where nothing is in its place, the folder that was being replaced is put back. All others are removed. What another
    process is writing stays, and everything where folders cannot be locked, as on Windows.
    """
    places = [target]
    with suppress(ValueError):  # a zero byte in the path
        places.append(Path(os.path.realpath(target)))  # a kit is replaced where it is, not where a link to it is
    for place in dict.fromkeys(places):
        with ExitStack() as locks:
            candidates = hidden_folders(place, ".replaced")
            replaced = [each for each in candidates if locks.enter_context(lock(each))]
            partial = [each for each in hidden_folders(place, ".partial") if locks.enter_context(lock(each))]
            is_at_work = len(replaced) < len(candidates)  # another process, between two renames
            if replaced and not is_at_work and not os.path.lexists(place):
                with suppress(OSError):  # the caller reports that there is none
                    replaced[-1].rename(place)
                    _warn(f"{place}: was put back: the process that was replacing it was killed")
                del replaced[-1]
            for folder in (*replaced, *partial):
                _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _warn(f"{folder}: left over from a process that was killed, and cannot be removed; delete it")
    else:
        _warn(f"{folder}: removed; it was left over from a process that was killed")


def _warn(message: str) -> None:
    _LOG.warning("%s", one_line(message))
