"""The number of files and connections that this process may have open."""

import sys
from contextlib import suppress

if sys.platform != "win32":  # Windows has no such limit
    import resource

_WANTED = 4096  # several times the connections of a server and the files of a kit


def open_files_limit() -> int | None:
    """How many files and connections this process may have open; None on Windows."""
    if sys.platform == "win32":
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_open_files_limit() -> None:
    """Raise the limit of this process to what a server needs, as far as the system permits it."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinity = resource.RLIM_INFINITY
    wanted = _WANTED if hard == infinity else min(_WANTED, hard)
    if soft != infinity and soft < wanted:
        with suppress(OSError, ValueError):  # the limit stays as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
