"""Progress of long tasks: a callable that receives it, and progress bars for the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Report(Protocol):
    """Receives the progress of a task."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `task` are done; `note` is a short remark, such as the current loss."""
        ...


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """Ignores progress."""


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Show one bar for each task, with the time remaining, on standard error if that is a terminal."""
    # Imported here, so that --help stays fast.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("[dim]{task.fields[note]}"),
    )
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {}

        def report(task: str, done: int, total: int, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total, note=note)
            bars.update(tasks[task], completed=done, total=total, note=note)

        yield report
