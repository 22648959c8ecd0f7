"""Renamed options, and values that options no longer have.

A renamed option: the old name works for a while, hidden from `--help`, and prints one line of warning.

    images: Annotated[int | None, typer.Option(help="Training images of each class.")] = None,
    pictures: Annotated[
        int | None, typer.Option("--pictures", hidden=True, callback=deprecated_option("--pictures", "--images"))
    ] = None,

The command then uses `renamed("--pictures", pictures, "--images", images)`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import typer

from msc_edge.errors import UsageError

Value = TypeVar("Value")

AUTO_PRECISION = "is deprecated: the kit says which model scores; leave it out"
"""The advice for a precision `auto`. It once meant the faster model on the PC."""


def deprecated_option(old: str, new: str) -> Callable[[Any], Any]:
    """Return a typer callback that warns on standard error if `old` is given, and passes its value on unchanged.

    Args:
        old: the deprecated option, with its dashes. Its default must be None (or an empty list).
        new: the option that replaces it.
    """

    def warn(value: Any) -> Any:
        # Callbacks also run for options that are not on the command line; the value is then the default.
        if value is not None and value != []:
            typer.echo(f"warning: {old} is deprecated; use {new}", err=True)
        return value

    return warn


def deprecated_value(option: str, value: Any, advice: str) -> Callable[[Any], Any]:
    """Return a typer callback that warns on standard error if `option` has this value, and passes it on unchanged."""

    def warn(found: Any) -> Any:
        if found == value:
            typer.echo(f"warning: {option} {value} {advice}", err=True)
        return found

    return warn


def renamed(old: str, old_value: Value | None, new: str, new_value: Value | None) -> Value | None:
    """The value of a renamed option, under whichever name it was given. UsageError for both names."""
    if old_value is not None and new_value is not None:
        raise UsageError(f"{old} is the deprecated name of {new}, and both are given; remove {old}")
    return new_value if old_value is None else old_value
