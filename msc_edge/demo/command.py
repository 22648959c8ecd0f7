"""`msc-edge demo`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msc_edge.demo.pipeline import Alarms, DemoResult


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to leave everything in.")] = Path("msc-edge-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Other parts, other defects.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo there.")] = False,
) -> None:
    """See it work in minutes, without network: draw parts, train, export, score."""
    from msc_edge.errors import extras_named
    from msc_edge.progress import progress_bars

    with extras_named():
        from msc_edge.demo.pipeline import run_demo

    with progress_bars() as report:
        result = run_demo(out, seed=seed, overwrite=overwrite, report=report)
    _show(result, out)


def _show(result: "DemoResult", out: Path) -> None:
    from rich.table import Table

    from msc_edge.demo.pipeline import KIT, SCORES, SHEET
    from msc_edge.runtime.tools.display import console, to_standard_output

    table = Table(title="Drawn parts the kit has never seen", title_justify="left", title_style="bold")
    table.add_column("test images")
    table.add_column("AUROC", justify="right")
    table.add_column("rejected", justify="right")
    table.add_column("", style="dim")
    for name, auroc in result.auroc_of.items():
        rejected, of = result.caught[name]
        table.add_row(name.replace("_", " "), f"{auroc:.3f}", f"{rejected} of {of}")
    caught = [sum(each) for each in zip(*result.caught.values(), strict=True)]
    table.add_section()
    table.add_row("all defects", f"{result.auroc:.3f}", f"{caught[0]} of {caught[1]}", style="bold")
    table.add_row("good parts", "", f"{result.rejected.count} of {result.rejected.images}", _promise(result.rejected))
    table.add_row("good parts, warned", "", f"{result.warned.count} of {result.warned.images}", _promise(result.warned))
    table.add_row("milliseconds per image", "", f"{result.milliseconds:.1f}", "on one core")
    with to_standard_output():
        to = console(stderr=False)
        to.print(table)
        to.print(f"look at: {out / SHEET}, {out / SCORES}")
        to.print(f"next:    msc-edge score {shlex.quote(str(out / KIT))} IMAGE_TABLE")


def _promise(alarms: "Alarms") -> str:
    low, high = alarms.band
    return f"promised {alarms.expected_rate:.1%}: {low} to {high}"
