"""The queue of trainings and exports: one works at a time, the others wait in the order of the clicks.

Two at once take more than twice as long, and may not fit into memory. All state is in the files of the jobs, so the
queue is the same after the server was killed and started again.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from filelock import FileLock

from msc_edge.errors import MscEdgeError
from msc_edge.studio.jobs import Job
from msc_edge.studio.training import Training
from msc_edge.studio.workspace import Workspace

_LOCK = ".queue-lock"
_EVERY = 1.0  # seconds between two looks at the queue
_LOG = logging.getLogger("msc_edge")


@dataclass(frozen=True)
class TrainingQueue:
    """The queue of all trainings of a workspace."""

    workspace: Workspace

    def submit(self, job: Job, task: str, **arguments: Any) -> None:
        """Start a task as soon as all work before it has ended; see `Job.enqueue`."""
        with self._lock():
            job.enqueue(self._last_place() + 1, task, **arguments)
        self.advance()

    def resume(self, job: Job) -> None:
        """Continue work in the same way; see `Job.enqueue_again`."""
        with self._lock():
            job.enqueue_again(self._last_place() + 1)
        self.advance()

    def cancel(self, job: Job) -> None:
        """Take work out of the queue, or stop it. It can be resumed."""
        with self._lock():  # it must not start meanwhile
            job.leave_queue()
        job.cancel()
        self.advance()

    def advance(self) -> None:
        """Start the first work that waits, unless other work runs."""
        with self._lock():
            waiting = self.waiting()
            if not waiting or self.running() is not None:
                return
            for training in waiting:
                try:
                    training.job.begin()
                except MscEdgeError as error:  # such as a full disk: the page shows it, and others have their turn
                    _LOG.warning("%s: %s", training.title, error)
                    with suppress(MscEdgeError):
                        training.job.fail(str(error))
                else:
                    return

    def running(self) -> Training | None:
        """The training that works; None if none does."""
        return next((each for each in self._trainings() if each.job.state == "running"), None)

    def waiting(self) -> list[Training]:
        """The trainings that wait, the next one first."""
        places = [(each.job.place, each) for each in self._trainings()]
        queued = [(place, each) for place, each in places if place is not None]
        return [each for _, each in sorted(queued, key=lambda found: found[0])]

    def before(self, training: Training) -> list[Training]:
        """The trainings that work or wait before one that waits."""
        waiting, running = self.waiting(), self.running()
        ahead = waiting[: waiting.index(training)] if training in waiting else []
        return [running, *ahead] if running else ahead

    @contextmanager
    def kept_moving(self) -> Iterator[None]:
        """Start work that waits as soon as the work before it ends. Work that was interrupted comes first."""
        with self._lock():
            for training in self._trainings():
                if training.job.state == "interrupted":
                    training.job.enqueue_again(0)
        ended = threading.Event()
        thread = threading.Thread(target=self._move, args=(ended,), name="training-queue", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _move(self, ended: threading.Event) -> None:
        while True:
            try:
                self.advance()
            except Exception:  # such as a folder that is deleted meanwhile: the next look may find it gone
                _LOG.exception("the queue of trainings cannot be read")
            if ended.wait(_EVERY):
                return

    def _trainings(self) -> Iterator[Training]:
        for project in self.workspace.projects():
            yield from project.trainings()

    def _last_place(self) -> int:
        return max((each.job.place or 0 for each in self._trainings()), default=0)

    def _lock(self) -> FileLock:
        # A new one each time: a lock is that of a thread, and of a process.
        return FileLock(self.workspace.folder / _LOCK)
