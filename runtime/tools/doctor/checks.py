"""What one check of `msc-edge doctor` found, and the summary of all of them.

`package_checks`, `machine_checks` and `kit_checks` hold the checks.
"""

from collections.abc import Callable, Iterator
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
    """What to do; None where there is nothing to do."""


def run_check(name: str, check: Callable[[], Check]) -> Check:
    """What the check finds. A check that fails becomes a problem, so that the other checks still run."""
    try:
        return check()
    except Exception as error:
        remedy = "report this line and the name of the system to the developers of msc-edge"
        return Check(name, "problem", f"the check failed: {type(error).__name__}: {error}", remedy)


def run_checks(*checks: Callable[[], Check]) -> Iterator[Check]:
    """Run checks one after another, each under the name of its function. None of them raises."""
    for check in checks:
        yield run_check(check.__name__, check)


def summary_of(checks: list[Check]) -> str:
    """All problems in one line."""
    problems = [check.name for check in checks if check.state == "problem"]
    return f"{many(len(problems), 'problem')}: {', '.join(problems)}" if problems else "no problem found"
