"""Where a file may be written that takes long to compute."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from msc_edge.errors import UsageError, writing
from msc_edge.files import kind_of


def check_report_path(path: Path, *, overwrite: bool) -> None:
    """`check_file` for a report."""
    check_file("--report", path, (".html", ".htm"), overwrite=overwrite)


def check_file(option: str, path: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Check before hours of work that a file can be written to `path`, which was given with `option`.

    `overwrite` allows an existing file. UsageError when the path is taken or does not end in one of the suffixes,
    OutputError when its folder cannot be written to.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path}: expected a name that ends in {suffixes[0]}")
    kind, _ = kind_of(path)
    if kind == "folder":
        raise UsageError(f"{option} {path}: is a folder; choose another name")
    if kind and not overwrite:
        raise UsageError(f"{path} exists already; choose another name, or pass --overwrite to replace it")
    check_writable(path.parent, target=path)


def check_writable(folder: Path, *, target: Path) -> None:
    """Create the folder that will hold `target`, and check that files can be written there. OutputError otherwise."""
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
