"""A folder for a training of its own: a new one, or the one that is to be resumed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from msc_edge.errors import UsageError, writing
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.metrics import METRICS

_BEGUN = (METRICS, CHECKPOINT)  # what a training leaves that was broken off
_LOCK = ".msc-edge-lock"  # there while a training runs; after kill -9 it stays, and holds nobody up


@contextmanager
def exclusive_run_folder(out: Path, *, record: str, then: str, resume: bool) -> Iterator[None]:
    """Make the folder, or take the one that is to be resumed; one that stays empty is removed again.

    Until the end no other training may have it. `record` is the file that a finished training has, `then` what to do
    with one. Raises UsageError when the folder is taken or its name is not valid text, OutputError when it cannot be
    made.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{out}: its name is not valid text (TensorBoard cannot write there); choose another"
        ) from error
    with writing(out):
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is a file; choose another name")
        out.mkdir(parents=True, exist_ok=True)
    try:
        if os.environ.get("LOCAL_RANK", "0") != "0":  # the first process has the folder, and this one helps it
            yield
        else:
            with folder_lock(out):
                _refuse_taken(out, record=record, then=then, resume=resume)
                yield
    except BaseException:
        with suppress(OSError):  # it is not empty, and that is well
            out.rmdir()
        raise


@contextmanager
def folder_lock(out: Path) -> Iterator[None]:
    """Hold a lock of the operating system's, which ends with the process however that ends."""
    lock = FileLock(out / _LOCK, timeout=0)
    with writing(out):
        try:
            lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"{out}: another training is at work there; wait until it has ended, or choose another name"
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file, and filelock does so there
            (out / _LOCK).unlink()
        lock.release()


def _refuse_taken(out: Path, *, record: str, then: str, resume: bool) -> None:
    with writing(out):
        finished = (out / record).is_file()
        begun = any((out / name).is_file() for name in _BEGUN) and not finished
        occupied = any(path.name != _LOCK for path in out.iterdir())
    if finished and resume:
        raise UsageError(f"{out}: this run is finished already; {then}")
    if occupied and not (resume and begun):
        if resume:
            raise UsageError(f"{out}: holds no run that was broken off, and is not empty; choose another name")
        remedy = "continue the run there with --resume, or choose" if begun else "choose"
        raise UsageError(f"{out}: is not empty; {remedy} another name")
