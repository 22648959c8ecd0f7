"""A folder for a training of its own: a new one, or the one that is to be resumed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msc_edge.errors import UsageError, writing
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.metrics import METRICS

_BEGUN = (METRICS, CHECKPOINT)  # what a training leaves that was broken off


@contextmanager
def claimed(out: Path, *, record: str, then: str, resume: bool) -> Iterator[None]:
    """Make the folder, or take the one that is to be resumed; one that stays empty is removed again.

    `record` is the file that a finished training has, `then` what to do with one. Raises UsageError when the folder
    is taken or its name is not valid text, OutputError when it cannot be made.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{out}: its name is not valid text (TensorBoard cannot write there); choose another"
        ) from error
    if (out / record).is_file() and resume:
        raise UsageError(f"{out}: this run is finished already; {then}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; choose another name")
    first_process = os.environ.get("LOCAL_RANK", "0") == "0"  # the others find what the first has written
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        occupied = any(out.iterdir())
    begun = any((out / name).is_file() for name in _BEGUN) and not (out / record).is_file()
    if occupied and first_process and not (resume and begun):
        if resume:
            raise UsageError(f"{out}: holds no run that was broken off, and is not empty; choose another name")
        remedy = "continue the run there with --resume, or choose" if begun else "choose"
        raise UsageError(f"{out}: is not empty; {remedy} another name")
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it is not empty, and that is well
            out.rmdir()
        raise
