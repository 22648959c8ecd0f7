"""The folder of one training: create it, or reopen it to resume, and lock it while the training runs.

Imports neither torch nor Lightning, so that a check of a folder is fast.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from msc_edge.errors import MscEdgeError, UsageError, writing

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.csv"
RECORD = "run.json"  # written last: a run that has it is complete
TENSORBOARD = "tensorboard"
CURVES = "curves.svg"
VIEWS = "views.png"
_STARTED = (METRICS, CHECKPOINT)  # the files of a training that was interrupted
_WRITTEN = (*_STARTED, Path(CHECKPOINT).with_suffix(".partial").name, CURVES, VIEWS)
_LOCK = ".msc-edge-lock"  # exists while a training runs; after kill -9 the file stays, but it is not locked


@contextmanager
def exclusive_run_folder(
    out: Path,
    *,
    record: str,
    hint: str,
    resume: bool,
    steps_in: Callable[[Path], int] = lambda _: 1,
    files: Sequence[str] = (),
) -> Iterator[None]:
    """Create the folder, or reopen it to resume, and lock it.

    After an error, a training without a step in its checkpoint leaves nothing, so that the same command can be given
    again; other files in the folder stay. One with steps stays, and the error gets a note that it can be resumed.

    `record` is the file that only a finished training has, `hint` the advice for a finished training. `steps_in`: how
    many steps a checkpoint holds. `files`: names of what the training writes beside its checkpoint and metrics. Raises
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
                resumed = _check_unused(out, record=record, hint=hint, resume=resume)
                try:
                    yield
                except BaseException as error:
                    _leave(out, error, steps_in=steps_in, files=() if resumed else (*_WRITTEN, *files))
                    raise
    except BaseException:
        with suppress(OSError):  # the folder is not empty
            out.rmdir()
        raise


def _leave(out: Path, error: BaseException, *, steps_in: Callable[[Path], int], files: Sequence[str]) -> None:
    """Say how a training with steps is resumed; of another one remove the `files`, empty for one that was resumed."""
    checkpoint = out / CHECKPOINT
    if checkpoint.is_file() and (steps := steps_in(checkpoint)):
        if not isinstance(error, MscEdgeError):  # its message has its own remedy
            error.add_note(
                f"{out}: the checkpoint of step {steps} is kept; give the same command with --resume to go on from it"
            )
        return
    with suppress(OSError):
        for name in files:
            (out / name).unlink(missing_ok=True)
        if files:
            shutil.rmtree(out / TENSORBOARD, ignore_errors=True)


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


def _check_unused(out: Path, *, record: str, hint: str, resume: bool) -> bool:
    """Whether there is a training to resume. UsageError where the folder cannot be used."""
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
        remedy = "resume the training there with --resume, delete it, or choose" if started else "choose"
        raise UsageError(f"{out}: is not empty; {remedy} another name")
    return occupied
