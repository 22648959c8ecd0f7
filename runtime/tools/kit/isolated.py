"""Work on a kit in a process of its own: native code that the kit crashes or keeps busy does not end the command."""

import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn, TypeVar

from msc_edge.errors import KitError, MscEdgeError
from msc_edge.kit.opening import enough_memory

Item = TypeVar("Item")

TIMEOUT = 120.0
"""Seconds until the next item: a large kit on a slow disk takes a part of it."""
_LONGEST = 1e6  # seconds; the operating system takes no more than some weeks
_PATIENCE = 5.0  # seconds for the process to end by itself


def isolated(work: Callable[[Path], Iterator[Item]], kit: Path, *, timeout: float = TIMEOUT) -> Generator[Item]:
    """What `work(kit)` yields, computed in a new process.

    `work` and what it yields travel between processes, so they must be picklable. Raises the MscEdgeError that it
    raises, and KitError when its process runs out of memory, is ended by a signal, or yields nothing for `timeout`
    seconds. Closing the generator ends the process. Its temporary files are removed, however it ends.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="msc-edge-kit-", ignore_cleanup_errors=True) as folder:
        process = context.Process(target=_run, args=(work, kit, sender, folder), name="msc-edge kit", daemon=True)
        process.start()
        sender.close()
        try:
            while receiver.poll(min(timeout, _LONGEST)):
                item, error = receiver.recv()
                if error:
                    raise error
                yield item
            raise KitError(
                f"{kit}: opening and scoring it gave no result for {timeout:g} seconds; do not use this kit, or pass a "
                "larger --timeout where this PC or its disk is slow"
            )
        except EOFError:
            process.join()
            if process.exitcode:
                raise _failure(kit, process.exitcode) from None
        finally:
            receiver.close()
            process.terminate()
            process.join(_PATIENCE)
            process.kill()
            process.join()


def _failure(kit: Path, code: int) -> Exception:
    if code > 0:
        return RuntimeError("the process that opened the kit failed; its traceback is above")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":  # the system's choice when memory runs out
        return KitError(f"{kit}: opening and scoring it was ended by SIGKILL; check the memory of this machine")
    return KitError(f"{kit}: opening and scoring it crashes the process ({name}); do not use this kit")


def _end(signum: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise SystemExit(128 + signum)


def _run(work: Callable[[Path], Iterator[Item]], kit: Path, sender: Connection, temporary: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    signal.signal(signal.SIGTERM, _end)
    tempfile.tempdir = temporary
    try:
        with enough_memory(kit):
            for item in work(kit):
                sender.send((item, None))
    except BrokenPipeError:  # the parent has gone
        pass
    except MscEdgeError as error:
        sender.send((None, error))
