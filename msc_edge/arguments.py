"""Checks of arguments that Python users pass: each UsageError names the argument, its value and what is expected."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

from msc_edge.errors import UsageError


def path_argument(name: str, value: object, example: str) -> Path:
    """A path, given as text or as an object of `pathlib`. UsageError for anything else and for an empty text."""
    _check_path(name, value, example)
    if value == "":
        raise UsageError(f"{name} is empty, perhaps from a variable that is not set; pass a path such as {example}")
    return Path(cast("str | Path", value))


def paths_argument(name: str, value: object, example: str) -> list[str | Path]:
    """One path or several, as they were given. UsageError for anything else."""
    if isinstance(value, str | os.PathLike):
        paths = [value]
    elif isinstance(value, bytes | bytearray) or not isinstance(value, Iterable):
        raise UsageError(
            f"{name} is {described(value)}; expected a path or a list of paths, as text or pathlib.Path, such as "
            f"{example}"
        )
    else:
        paths = list(value)
    for number, path in enumerate(paths):
        _check_path(f"{name}[{number}]", path, example)
    return cast("list[str | Path]", paths)


def _check_path(name: str, value: object, example: str) -> None:
    if not isinstance(os.fspath(value) if isinstance(value, os.PathLike) else value, str):
        raise UsageError(f"{name} is {described(value)}; expected a path as text or pathlib.Path, such as {example}")


def number_argument(name: str, value: object, example: float) -> float:
    """A number, also one of numpy. UsageError for anything else; the range is checked by the caller."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} is {described(value)}; expected a number, such as {example}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # pyright: ignore[reportOperatorIssue]


def whole_argument(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """A whole number in a range, also one of numpy. UsageError for anything else."""
    expected = f"a whole number, at least {least}" if most is None else f"a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} is {described(value)}; expected {expected}")
    number = int(value)
    if number < least or (most is not None and number > most):
        raise UsageError(f"{name} is {number}; expected {expected}")
    return number


def check_functions(**named: Callable[..., Any] | None) -> None:
    """UsageError for a value that cannot be called; None is no function."""
    for name, value in named.items():
        if value is not None and not callable(value):
            raise UsageError(f"{name} is {described(value)}; expected a function")


def functions_argument(name: str, value: object) -> tuple[Callable[..., Any], ...]:
    """A list of functions. UsageError for anything else."""
    if not isinstance(value, Sequence):
        raise UsageError(f"{name} is {described(value)}; expected a list of functions")
    for number, each in enumerate(value):
        check_functions(**{f"{name}[{number}]": each})
    return tuple(value)


def described(value: object) -> str:
    """A value in an error: short ones as they are written in Python, others by their type."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"of the type {type(value).__name__}"
