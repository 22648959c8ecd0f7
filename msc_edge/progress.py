"""How long work tells how far it is: a callable that any user can give, and rich bars for the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Report(Protocol):
    """Told now and then that `done` of `total` units of `task` are done, with a word on the state of things."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Take the news."""
        ...


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """OnEvent nobody."""


@contextmanager
def progress_bars() -> Iterator[Report]:
    """One bar a task, with the time remaining, on standard error; only if that is a terminal."""
    # Imported here: the modules of the command line stay light, so that --help is quick.
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
