"""Progress of long tasks: a callable that receives it, progress bars for a terminal, and lines for a log."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from msc_edge.text import one_line


class Report(Protocol):
    """Receives the progress of a task."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `task` are done; `note` is a short remark, such as the current loss."""
        ...


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """Ignores progress."""


_EVERY = 60.0  # seconds between two lines of a log
_FIRST = 5.0  # seconds that a task takes until its first line; most commands are done by then
_TICK = 1.0  # seconds


class TaskTimes:
    """The elapsed time of each task, and the time left. A task that counts from the start again is a new one."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[float, int, int]] = {}
        """When a task started, with how many units done, and how many are done now."""

    def at(self, now: float, task: str, done: int, total: int) -> tuple[float, float | None]:
        """Seconds since the start of a task, and seconds left; at `now`, `done` of its `total` units are done.

        None left: it is finished, or has not advanced yet.
        """
        started, first, before = self._tasks.get(task, (now, done, done))
        if done < before:
            started, first = now, done
        self._tasks[task] = started, first, done
        elapsed = now - started
        return elapsed, elapsed / (done - first) * (total - done) if first < done < total else None


class ProgressLines:
    """A Report that writes lines such as `fine-tuning: 30 of 80, 1:49 elapsed, about 3:02 left, loss 3.1`.

    A task of more than five seconds writes one then, one at its end, and in between one a minute. Its later runs, such
    as one for each epoch, write the lines of a minute only. Safe to use from several threads.
    """

    def __init__(self, write: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: seconds of a clock."""
        self._write, self._now = write, now
        self._times = TaskTimes()
        self._last = now()
        self._running: dict[str, tuple[int, int, str]] = {}
        """Tasks that have not ended, the one that reported last at the end."""
        self._known: set[str] = set()
        """Tasks that wrote a line."""
        self._open: set[str] = set()
        """Tasks that wrote a line in their current run."""
        self._lock = threading.Lock()

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """See Report."""
        with self._lock:
            self._running.pop(task, None)
            if done < total:
                self._running[task] = done, total, note
            self._advance(task, done, total, note)

    def tick(self) -> None:
        """Write the line that is due of a task that has not reported for a while; call it often."""
        with self._lock:
            if self._running:
                task, state = next(reversed(self._running.items()))
                self._advance(task, *state)

    def _advance(self, task: str, done: int, total: int, note: str) -> None:
        now = self._now()
        elapsed, left = self._times.at(now, task, done, total)
        if elapsed == 0:
            self._open.discard(task)
        is_first = task not in self._known and elapsed >= _FIRST
        is_due = elapsed >= _EVERY and now - self._last >= _EVERY
        is_end = task in self._open and done >= total
        if not (is_first or is_due or is_end):
            return
        self._last = now
        self._known.add(task)
        (self._open.discard if done >= total else self._open.add)(task)
        about = "" if left is None else f", about {clock(left)} left"
        self._write(f"{task}: {done} of {total}, {clock(elapsed)} elapsed{about}{note and f', {note}'}")


@contextmanager
def progress_lines(write: Callable[[str], None]) -> Iterator[Report]:
    """Write the lines of `ProgressLines`, also while no task reports."""
    report, ended = ProgressLines(write), threading.Event()

    def tick() -> None:
        while not ended.wait(_TICK):
            report.tick()

    thread = threading.Thread(target=tick, name="msc-edge progress", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        ended.set()
        thread.join()


def clock(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Show one bar for each task, with the time left, on standard error; `progress_lines` where it is no terminal."""
    # Imported here, so that --help stays fast.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        with progress_lines(
            lambda line: console.print(one_line(line), markup=False, highlight=False, emoji=False, soft_wrap=True)
        ) as report:
            yield report
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("[dim]{task.fields[note]}"),
    )
    with progress.Progress(*columns, console=console) as bars:
        tasks = {}

        def report(task: str, done: int, total: int, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total, note=note)
            bars.update(tasks[task], completed=done, total=total, note=note)

        yield report
