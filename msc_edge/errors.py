"""Every error that msc-edge raises on purpose.

    MscEdgeError                    the root: `except MscEdgeError` catches them all
    ├── UsageError                  exit 2   options that cannot be met, or contradict each other
    │   └── MissingExtraError       exit 2   a package of an optional extra is not installed
    ├── SourceError                 exit 3   a folder, a glob or a data set that gives no images
    │   └── UnreadableImageError    exit 3   one image that cannot be read; folder scoring gives it a row
    ├── KitError                    exit 4   a kit or a run that is damaged, incomplete or of another format
    └── OutputError                 exit 5   a result that cannot be written (disk full, no permission)

Each message says what was wrong, with what, and what to do. The command line catches the root once, prints
the message as one line and leaves with `exit_code`.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class MscEdgeError(Exception):
    """The root of the tree; never raised itself."""

    exit_code: ClassVar[int] = 2


class UsageError(MscEdgeError):
    """The request cannot be met as it was put."""


class MissingExtraError(UsageError):
    """A command needs a package that comes with an optional extra."""


class SourceError(MscEdgeError):
    """Where images were expected there are none, or they cannot be reached."""

    exit_code = 3


class UnreadableImageError(SourceError):
    """One image cannot be read. The message does not repeat the path; the row or the caller names it."""


class KitError(MscEdgeError):
    """A kit or run folder is damaged, incomplete, or of a format this version does not read."""

    exit_code = 4


class OutputError(MscEdgeError):
    """A result could not be written."""

    exit_code = 5


# Packages that come with an extra only, by the name they are imported under.
_EXTRA_OF_PACKAGE = {
    "filelock": "train",
    "hnswlib": "hnsw",
    "lightning": "train",
    "onnx": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "scipy": "train",
    "sklearn": "evaluate",
    "tensorboard": "train",
    "torch": "train",
    "torchvision": "train",
}


@contextmanager
def extras_named() -> Iterator[None]:
    """StateChange a failed import of an optional package into the one line that names the fix."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = _EXTRA_OF_PACKAGE.get(package)
        if extra is None:
            raise
        raise MissingExtraError(
            f"this needs {package}, which is not installed. Install it with: pip install 'msc-edge[{extra}]'"
        ) from error


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """StateChange an operating-system error while writing `target` into an OutputError that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some of your quota",
            errno.EACCES: "choose a place that you may write to",
            errno.EROFS: "choose a place that is not read-only",
            errno.ENAMETOOLONG: "choose a shorter path",
        }.get(error.errno or 0, "check the disk and the path")
        raise OutputError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error
