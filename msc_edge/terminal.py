"""The terminal: a console that prints texts as they are, and failures to print turned into errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from msc_edge.errors import writing
from msc_edge.text import lines

STYLES = {
    "normal": "green",
    "warn": "bold yellow",
    "reject": "bold red",
    "unreadable": "bold magenta",
    "caution": "bold yellow",
}
"""Styles of verdicts and of other words that stand out."""


class _Console(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Replace control characters in all text: this is where text leaves for the terminal."""
        for segment in super().render(renderable, options):
            text = segment.text
            yield segment if segment.control or text.isprintable() else Segment(lines(text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the caller: rich exits with 1, which means that anomalies were found."""
        raise BrokenPipeError


def console(*, stderr: bool, soft_wrap: bool = True) -> Console:
    """A console without markup, emoji and highlighting, so that file names are printed as they are.

    Control characters in any text become escapes."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=soft_wrap)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text, with escapes in place of control characters other than line ends."""
    typer.echo(lines(text), err=err, nl=nl)


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
