"""Every error that msc-edge raises on purpose.

    MscEdgeError                    the root: `except MscEdgeError` catches them all
    ├── UsageError                  exit 2   options that cannot be used, or contradict each other
    │   ├── MissingExtraError       exit 2   a package of an optional extra is not installed
    │   ├── OtherColumnsError       exit 2   a row file that another version of msc-edge wrote
    │   └── AlreadyNormalError      exit 2   an image to learn, which the kit does not reject
    ├── SourceError                 exit 3   a folder, a glob or a data set without images
    │   └── UnreadableImageError    exit 3   one image that cannot be read; a score file has a row for it
    ├── KitError                    exit 4   a kit or a run that is damaged, incomplete or of an unknown format
    └── OutputError                 exit 5   a result that cannot be written (disk full, no permission)

Each message names the object, the cause and the remedy. The command line catches the root once, prints the message as
one line and exits with `exit_code`.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class MscEdgeError(Exception):
    """The root of the tree. Only its subclasses are raised."""

    exit_code: ClassVar[int] = 2


class UsageError(MscEdgeError):
    """Options that cannot be used, or that contradict each other."""


class MissingExtraError(UsageError):
    """A package of an optional extra is not installed."""


class OtherColumnsError(UsageError):
    """A row file has other columns: another version of msc-edge wrote it."""


class AlreadyNormalError(UsageError):
    """An image that is to be learned has the verdict normal: there is nothing to learn."""


class SourceError(MscEdgeError):
    """Images that cannot be found or reached."""

    exit_code = 3


class UnreadableImageError(SourceError):
    """One image cannot be read. The message does not name the path: the caller does, such as `Detector.score_file`."""


class KitError(MscEdgeError):
    """A kit or a run that is damaged, incomplete, or of a format that this version does not read."""

    exit_code = 4


class OutputError(MscEdgeError):
    """A result that cannot be written."""

    exit_code = 5


# Packages that only an extra installs, by import name.
_EXTRA_OF_PACKAGE = {
    "argon2": "web",
    "asyncua": "machine",
    "cryptography": "sign",
    "filelock": "train",
    "hnswlib": "hnsw",
    "imagecodecs": "tiff",
    "lightning": "train",
    "onnx": "train",
    "onnxscript": "train",
    "pwdlib": "web",
    "pymodbus": "machine",
    "python_multipart": "web",
    "safetensors": "train",
    "scipy": "train",
    "sklearn": "evaluate",
    "starlette": "web",
    "tensorboard": "train",
    "tifffile": "tiff",
    "torch": "train",
    "torchvision": "train",
    "uvicorn": "web",
}


@contextmanager
def explain_missing_extra(extra: str | None = None) -> Iterator[None]:
    """Turn a failed import of an optional package into a MissingExtraError that names the extra.

    `extra`: the one that installs all optional packages of the code within; by default the one of the missing package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF_PACKAGE:
            raise
        extra = extra or _EXTRA_OF_PACKAGE[package]
        raise MissingExtraError(
            f"this needs {package}, which is not installed. Install it with: pip install 'msc-edge[{extra}]'"
        ) from error


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an operating-system error while `target` is written into an OutputError with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some of your quota",
            errno.EACCES: "choose a place that you may write to",
            errno.EROFS: "choose a place that is not read-only",
            errno.ENAMETOOLONG: "choose a shorter path",
            errno.EEXIST: "a file has this name, or a link of this name leads nowhere: choose another place",
            errno.ENOTDIR: "a part of the path is a file: choose another place",
        }.get(error.errno or 0, "check the disk and the path")
        raise OutputError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error
