"""`msc-edge doctor`."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from msc_edge.runtime.tools.doctor.checks import Check

_STYLES = {"ok": "green", "note": "bold yellow", "problem": "bold red"}


def doctor(
    kit: Annotated[
        Path | None,
        typer.Argument(metavar="KIT", help="A kit to verify and time: a folder or a .zip.", show_default=False),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="Give up when a check of the kit takes longer, and call it unusable."
        ),
    ] = 120,
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check this PC and report what to change before it scores camera frames.

    With a kit, the kit is verified, and frames are scored for 3 seconds on one thread and on all cores.

    Exit codes: 0 no problem, 2 a problem, 4 a kit that does not verify,
    5 output cannot be written.
    """
    checks = _run(kit, timeout)
    if json:
        _print_json(checks)
    else:
        _show(checks)
    problems = {check.name for check in checks if check.state == "problem"}
    if problems:
        raise typer.Exit(4 if "kit" in problems else 2)


def _run(kit: Path | None, timeout: float) -> "list[Check]":
    from msc_edge.terminal import console

    screen = console(stderr=True)
    checks: list[Check] = []
    with ExitStack() as stack:
        status = stack.enter_context(screen.status("checking ...")) if screen.is_terminal else None
        for check in _all_checks(kit, timeout):
            checks.append(check)
            if status:
                status.update(f"{check.name}: {check.state} ...")
    return checks


def _all_checks(kit: Path | None, timeout: float) -> "Iterator[Check]":
    from functools import partial

    from msc_edge.errors import KitError
    from msc_edge.runtime.tools.doctor.checks import Check
    from msc_edge.runtime.tools.doctor.machine_checks import machine_checks
    from msc_edge.runtime.tools.doctor.package_checks import package_checks

    hnswlib_works = True
    for check in package_checks():
        hnswlib_works &= not (check.name == "hnswlib" and check.state == "problem")
        yield check
    yield from machine_checks()
    if kit is None:
        yield Check("latency", "note", "not measured, because no kit was given", "msc-edge doctor KIT")
        return
    try:
        from msc_edge.runtime.tools.doctor.kit_checks import SECONDS, kit_checks
        from msc_edge.runtime.tools.kit.isolated import isolated
    except Exception:
        yield Check("kit", "problem", "cannot be checked while a package is broken", "see the check versions")
        return
    try:
        # In a process of its own: a kit that crashes it is what this check finds.
        yield from isolated(partial(kit_checks, index=hnswlib_works, seconds=SECONDS), kit, timeout=timeout)
    except KitError as error:
        yield Check("kit", "problem", str(error), "export the kit again")


def _print_json(checks: "list[Check]") -> None:
    import dataclasses
    import json

    from msc_edge import __version__
    from msc_edge.terminal import console, printing

    ok = all(check.state != "problem" for check in checks)
    report = {"msc_edge": __version__, "ok": ok, "checks": [dataclasses.asdict(check) for check in checks]}
    with printing():
        console(stderr=False).out(json.dumps(report, indent=2))


def _show(checks: "list[Check]") -> None:
    from msc_edge.runtime.tools.doctor.checks import summary_of
    from msc_edge.terminal import console, printing
    from msc_edge.text import one_line

    screen = console(stderr=False)
    with printing():
        if screen.is_terminal:
            screen.print(_table(checks), soft_wrap=False)
        else:
            for check in checks:
                remedy = f"; remedy: {check.remedy}" if check.remedy else ""
                screen.print(one_line(f"{check.state}: {check.name}: {check.found}{remedy}"))
        screen.print(one_line(summary_of(checks)))


def _table(checks: "list[Check]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from msc_edge.text import one_line

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        found = Text(one_line(check.found))
        if check.remedy:
            found.append(f"\n-> {one_line(check.remedy)}", _STYLES[check.state])
        table.add_row(Text(check.state, _STYLES[check.state]), Text(check.name, "bold"), found)
    return table
