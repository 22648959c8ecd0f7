"""The folder of one training: create it, or reopen it to resume, and lock it while the training runs.

Imports neither torch nor Lightning, so that a check of a folder is fast.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from msc_edge.errors import UsageError, writing

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"
CURVES = "curves.svg"
VIEWS = "views.png"
_STARTED = (METRICS, CHECKPOINT)  # the files of a training that was interrupted
_LOCK = ".msc-edge-lock"  # exists while a training runs; after kill -9 the file stays, but it is not locked


@contextmanager
def exclusive_run_folder(out: Path, *, record: str, hint: str, resume: bool) -> Iterator[None]:
    """Create the folder, or reopen it to resume, and lock it. If it is still empty after an error, remove it.

    `record` is the file that only a finished training has, `hint` the advice for a finished training. Raises
    UsageError if the folder is in use or its name is not valid text, OutputError if it cannot be created.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{out}: the name is not valid text, and TensorBoard cannot write there; choose another name"
        ) from error
    with writing(out):
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is a file; choose another name")
        out.mkdir(parents=True, exist_ok=True)
    try:
        if os.environ.get("LOCAL_RANK", "0") != "0":  # the first process of this training holds the lock
            yield
        else:
            with folder_lock(out):
                _check_unused(out, record=record, hint=hint, resume=resume)
                yield
    except BaseException:
        with suppress(OSError):  # the folder is not empty
            out.rmdir()
        raise


@contextmanager
def folder_lock(out: Path) -> Iterator[None]:
    """Hold a lock of the operating system, which ends with the process in any case."""
    lock = FileLock(out / _LOCK, timeout=0)
    with writing(out):
        try:
            lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"{out}: another training is running there; wait until it has finished, or choose another name"
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove an open file; there filelock removes it
            (out / _LOCK).unlink()
        lock.release()


def _check_unused(out: Path, *, record: str, hint: str, resume: bool) -> None:
    with writing(out):
        finished = (out / record).is_file()
        started = any((out / name).is_file() for name in _STARTED) and not finished
        occupied = any(path.name != _LOCK for path in out.iterdir())
    if finished and resume:
        raise UsageError(f"{out}: this training has already finished; {hint}")
    if occupied and not (resume and started):
        if resume:
            raise UsageError(
                f"{out}: is not empty, and contains no training to resume; delete it, or choose another name"
            )
        remedy = "resume the training there with --resume, or choose" if started else "choose"
        raise UsageError(f"{out}: is not empty; {remedy} another name")
