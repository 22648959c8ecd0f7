"""Where a report may be written."""

import tempfile
from pathlib import Path

from msc_edge.errors import UsageError, writing
from msc_edge.files import kind_of

MARK = b'<meta name="generator" content="msc-edge">'
"""By this a report of ours is known again."""
_WITHIN = 1024  # bytes from the beginning of the file


def check_place(path: Path, *, overwrite: bool, again: bool = False) -> None:
    """Find out before hours of work whether a report can be written to `path`.

    `overwrite` lets it replace any file, `again` a report of ours. UsageError when it is taken, or does not end in
    .html; OutputError when its folder cannot be written to.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: expected a name that ends in .html")
    kind, _ = kind_of(path)
    if kind == "folder":
        raise UsageError(f"--report {path}: is a folder; choose another name")
    if kind and not overwrite and not again:
        raise UsageError(f"{path} exists already; choose another name, or pass --overwrite to replace it")
    with writing(path):
        if kind and again and not _is_ours(path):
            raise UsageError(f"--report {path}: exists already, and is not a report of msc-edge; choose another name")
    check_writable(path.parent, what=path)


def check_writable(folder: Path, *, what: Path) -> None:
    """Make the folder that is to hold `what`, and find out whether it can be written to. OutputError when not."""
    with writing(what):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK in file.read(_WITHIN)
