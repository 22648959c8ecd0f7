"""The terminal: a console that prints texts as they are, and failures to print turned into errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from msc_edge.errors import writing

STYLES = {
    "normal": "green",
    "warn": "bold yellow",
    "reject": "bold red",
    "unreadable": "bold magenta",
    "caution": "bold yellow",
}
"""Styles of verdicts and of other words that stand out."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the exit code to the caller: rich exits with 1, which means that anomalies were found."""
        raise BrokenPipeError


def console(*, stderr: bool) -> Console:
    """A console without markup, emoji and highlighting, so that file names are printed as they are."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextmanager
def printing() -> Iterator[None]:
    """Turn a failure to write standard output into an OutputError; a closed pipe stays a BrokenPipeError."""
    with writing(Path("standard output")):
        try:
            yield
        except BrokenPipeError as error:
            closed = error
        else:
            return
    raise closed
