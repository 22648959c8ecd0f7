"""What one check of `msc-edge doctor` found, and the verdict over all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msc_edge.text import many


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    state: Literal["ok", "note", "problem"]
    """`note`: works, but is worth knowing. `problem`: must be changed."""
    found: str
    remedy: str | None = None
    """What to do, if there is something to do."""


def checked(name: str, check: Callable[[], Check]) -> Check:
    """What the check finds; where it fails itself, a problem that says so, for the others must go on."""
    try:
        return check()
    except Exception as error:
        remedy = "tell the makers of msc-edge, with this line and the name of the system"
        return Check(name, "problem", f"could not be checked: {type(error).__name__}: {error}", remedy)


def summary_of(checks: list[Check]) -> str:
    """The verdict in a line."""
    problems = [check.name for check in checks if check.state == "problem"]
    return f"{many(len(problems), 'problem')}: {', '.join(problems)}" if problems else "no problem found"
