"""Long work, each in a process of its own, with all of its state in the files of one folder.

The server may be killed and started again, and a page may be closed: the files say what became of the work.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

from msc_edge.errors import UsageError, writing
from msc_edge.files import written_whole
from msc_edge.studio.interruption import why_interrupted

_Model = TypeVar("_Model", bound=BaseModel)
State = Literal["not started", "queued", "running", "done", "failed", "cancelled", "interrupted"]
_REQUEST, _PROGRESS, _RESULT, _ERROR = "request.json", "progress.json", "result.json", "error.txt"
_CANCELLED, _QUEUED, _LOCK, _PROCESS, LOG = "cancelled", "queued", "lock", "process.txt", "log.txt"
_ENDS: tuple[tuple[str, State], ...] = ((_RESULT, "done"), (_ERROR, "failed"), (_CANCELLED, "cancelled"))
_STOP_AFTER = 20.0  # seconds that a process has to stop
_LOOK = 5.0  # seconds: a look at the state holds the lock for a moment
_started: dict[Path, subprocess.Popen[bytes]] = {}  # by this process: they may not hold their lock yet
_ended: dict[Path, int] = {}  # how these have ended, see Popen.returncode; of the last one in each folder


@dataclass(frozen=True)
class TaskProgress:
    """`done` of `total` units of a task are done after `seconds`, about `left` seconds are left."""

    task: str
    done: int
    total: int
    note: str
    seconds: float
    left: float | None


@dataclass(frozen=True)
class Job:
    """One piece of work, and its folder."""

    folder: Path

    @property
    def exists(self) -> bool:
        """Whether the work was ever asked for."""
        return (self.folder / _REQUEST).is_file()

    @property
    def request(self) -> dict[str, Any]:
        """What is to be done: the name of the task, and its arguments."""
        return json.loads((self.folder / _REQUEST).read_text(encoding="utf-8"))

    @property
    def state(self) -> State:
        """The state of the work, from its files and its lock."""
        if not self.exists:
            return "not started"
        if self._is_running():
            return "running"
        if self.place is not None:
            return "queued"
        for name, state in _ENDS:
            if (self.folder / name).is_file():
                return state
        return "interrupted"

    @property
    def is_active(self) -> bool:
        """Whether it runs, or waits to run."""
        return self.state in ("running", "queued")

    @property
    def place(self) -> int | None:
        """Its place in a queue, the smallest first; None if it does not wait in one."""
        with suppress(OSError, ValueError):
            return int((self.folder / _QUEUED).read_text(encoding="utf-8"))
        return None

    @property
    def result(self) -> Any:
        """What the work returned, not to be changed; None unless it is done."""
        path = self.folder / _RESULT
        return _parsed(path, path.stat().st_mtime_ns) if path.is_file() else None

    def result_as(self, model: type[_Model]) -> _Model | None:
        """The same, in a model. ValidationError where it is the result of another version."""
        path = self.folder / _RESULT
        return _validated(path, path.stat().st_mtime_ns, model) if path.is_file() else None

    @property
    def error(self) -> str:
        """Why it failed."""
        path = self.folder / _ERROR
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def interruption(self) -> str:
        """Why it was interrupted, as far as this server knows: it has not seen the end of what an older one started."""
        return why_interrupted(_ended.get(self.folder))

    @property
    def progress(self) -> list[TaskProgress]:
        """The tasks so far, in their order."""
        path = self.folder / _PROGRESS
        rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        return [TaskProgress(**row) for row in rows]

    def start(self, task: str, **arguments: Any) -> None:
        """Start a task; see `tasks`. UsageError if the last one still runs or waits."""
        self._ask(task, arguments)
        self._run()

    def resume(self) -> None:
        """Start the same task again, after it was interrupted or cancelled, or failed."""
        self._ask_again()
        self._run()

    def enqueue(self, place: int, task: str, **arguments: Any) -> None:
        """As `start`, but wait in a queue until `begin`."""
        self._ask(task, arguments)
        self._wait_at(place)

    def enqueue_again(self, place: int) -> None:
        """As `resume`, but wait in a queue until `begin`."""
        self._ask_again()
        self._wait_at(place)

    def begin(self) -> None:
        """Start the task that waits. OutputError if it cannot be started; it waits no longer."""
        try:
            self._run()
        finally:
            with writing(self.folder):
                self._remove(_QUEUED)

    def leave_queue(self) -> None:
        """Cancel a task that waits; nothing for another one."""
        if self.state == "queued":
            with writing(self.folder):
                _write(self.folder / _CANCELLED, "")
                self._remove(_QUEUED)

    def cancel(self) -> None:
        """Stop the process; the work can be resumed."""
        if self.state == "running":
            with writing(self.folder):
                _write(self.folder / _CANCELLED, "")
            self.stop()

    def stop(self) -> None:
        """Stop the process, if it runs, and wait for its end."""
        process = _started.get(self.folder)
        number = process.pid if process else self._process_id()
        deadline = time.monotonic() + _STOP_AFTER
        kill = getattr(signal, "SIGKILL", signal.SIGTERM)
        while number is not None and self._is_running():
            with suppress(OSError):
                os.kill(number, signal.SIGTERM if time.monotonic() < deadline else kill)
            time.sleep(0.2)

    @contextmanager
    def work(self) -> Iterator[bool]:
        """Hold the lock of the job, in its process. False if another process works on it."""
        lock = FileLock(self.folder / _LOCK, timeout=_LOOK)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            _write(self.folder / _PROCESS, str(os.getpid()))
            self._remove(_QUEUED)  # the server may have been killed right after it started this process
            yield True
        finally:
            lock.release()

    def write_progress(self, tasks: list[TaskProgress]) -> None:
        """Write the progress, in the process of the job."""
        _write(self.folder / _PROGRESS, json.dumps([asdict(task) for task in tasks]), durable=False)

    def finish(self, result: Any) -> None:
        """Write the result, in the process of the job."""
        _write(self.folder / _RESULT, json.dumps(result))

    def fail(self, reason: str) -> None:
        """Write why the work failed, in the process of the job."""
        _write(self.folder / _ERROR, reason)

    def _ask(self, task: str, arguments: dict[str, Any]) -> None:
        if self.is_active:
            raise UsageError(f"this work is {self.state} already; wait for it, or cancel it")
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove(_PROGRESS, _RESULT, _ERROR, _CANCELLED)
            _write(self.folder / _REQUEST, json.dumps({"task": task, **arguments}, indent=1))

    def _ask_again(self) -> None:
        if self.state not in ("interrupted", "cancelled", "failed"):
            raise UsageError("this work is not interrupted; nothing to resume")
        with writing(self.folder):
            self._remove(_PROGRESS, _ERROR, _CANCELLED)

    def _wait_at(self, place: int) -> None:
        with writing(self.folder):
            _write(self.folder / _QUEUED, str(place))

    def _run(self) -> None:
        # A session of its own: Ctrl-C at the server's terminal must not reach it, the server stops it in order.
        with writing(self.folder), (self.folder / LOG).open("ab") as log:
            _started[self.folder] = subprocess.Popen(
                [sys.executable, "-m", "msc_edge.studio.worker", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_running(self) -> bool:
        process = _started.get(self.folder)
        if process:
            if process.poll() is None:
                return True
            if _started.get(self.folder) is process:  # no other thread has started it again
                _started.pop(self.folder, None)
                _ended[self.folder] = process.returncode
        if not (self.folder / _LOCK).exists():
            return False
        lock = FileLock(self.folder / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        lock.release()
        return False

    def _process_id(self) -> int | None:
        with suppress(OSError, ValueError):
            return int((self.folder / _PROCESS).read_text(encoding="utf-8"))
        return None

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


@lru_cache(maxsize=16)
def _validated(path: Path, stamp: int, model: type[_Model]) -> _Model:
    """As `_parsed`: of 10,000 images each validation would take as long as a thumbnail."""
    return model.model_validate(_parsed(path, stamp))


@lru_cache(maxsize=16)
def _parsed(path: Path, stamp: int) -> Any:  # noqa: ARG001 (another stamp is another result)
    """A page of thumbnails asks for the same result once for each."""
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, text: str, *, durable: bool = True) -> None:
    with written_whole(path, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8")
