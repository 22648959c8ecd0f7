"""Work on a kit in a process of its own: native code that the kit crashes does not end the command."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn, TypeVar

from msc_edge.errors import KitError, MscEdgeError

Item = TypeVar("Item")

_PATIENCE = 5.0  # seconds for the process to remove what it unpacked


def isolated(work: Callable[[Path], Iterator[Item]], kit: Path) -> Generator[Item]:
    """What `work(kit)` yields, computed in a new process.

    `work` and what it yields travel between processes, so they must be picklable. Raises the MscEdgeError or
    MemoryError that it raises, and KitError when its process is ended by a signal. Closing the generator ends the
    process.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, kit, sender), name="msc-edge kit", daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            item, error = receiver.recv()
            if error:
                raise error
            yield item
    except EOFError:
        process.join()
        if process.exitcode:
            raise _failure(kit, process.exitcode) from None
    finally:
        receiver.close()
        process.terminate()  # it removes what it unpacked
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


def _run(work: Callable[[Path], Iterator[Item]], kit: Path, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    signal.signal(signal.SIGTERM, _end)
    try:
        for item in work(kit):
            sender.send((item, None))
    except BrokenPipeError:  # the parent has gone
        pass
    except (MscEdgeError, MemoryError) as error:
        sender.send((None, error))
