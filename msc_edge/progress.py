"""Progress of long tasks: a callable that receives it, progress bars for a terminal, and lines for a log."""

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


_EVERY = 60.0  # seconds


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


def progress_lines(write: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> Report:
    """A Report that writes a line a minute, such as `fine-tuning: 30 of 80, 1:49 elapsed, about 3:02 left, loss 3.1`.

    A task that takes less than a minute writes nothing. `now`: seconds of a clock.
    """
    times = TaskTimes()
    last = now()

    def report(task: str, done: int, total: int, note: str = "") -> None:
        nonlocal last
        time_now = now()
        elapsed, left = times.at(time_now, task, done, total)
        if elapsed < _EVERY or time_now - last < _EVERY:
            return
        last = time_now
        about = "" if left is None else f", about {clock(left)} left"
        write(f"{task}: {done} of {total}, {clock(elapsed)} elapsed{about}{note and f', {note}'}")

    return report


def clock(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Show one bar for each task, with the time remaining, on standard error; a line a minute if it is no terminal."""
    # Imported here, so that --help stays fast.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        yield progress_lines(
            lambda line: console.print(one_line(line), markup=False, highlight=False, emoji=False, soft_wrap=True)
        )
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
