"""`msc-edge demo`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msc_edge.demo.pipeline import Alarms, DemoResult


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for all results.")] = Path("msc-edge-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn parts and defects.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
) -> None:
    """Run the whole pipeline in minutes, without a network: draw parts, train, export, score."""
    from msc_edge.errors import explain_missing_extra
    from msc_edge.progress import progress_bars

    with explain_missing_extra("train"):
        from msc_edge.demo.pipeline import run_demo

    with progress_bars() as report:
        result = run_demo(out, seed=seed, overwrite=overwrite, report=report)
    _show(result, out)


def _show(result: "DemoResult", out: Path) -> None:
    from rich.table import Table

    from msc_edge.demo.pipeline import KIT, SCORES, SHEET
    from msc_edge.terminal import console, printing

    table = Table(title="Drawn test images, not used for training", title_justify="left", title_style="bold")
    table.add_column("test images")
    table.add_column("AUROC", justify="right")
    table.add_column("rejected", justify="right")
    table.add_column("", style="dim")
    for name, auroc in result.auroc_of.items():
        rejected, total = result.rejected_of[name]
        table.add_row(name.replace("_", " "), f"{auroc:.3f}", f"{rejected} of {total}")
    rejected, total = (sum(each) for each in zip(*result.rejected_of.values(), strict=True))
    table.add_section()
    table.add_row("all defects", f"{result.auroc:.3f}", f"{rejected} of {total}", style="bold")
    for name, alarms in (("normal, rejected", result.rejected), ("normal, warned", result.warned)):
        table.add_row(name, "", f"{alarms.count} of {alarms.images}", _expected(alarms))
    table.add_row("milliseconds per image", "", f"{result.milliseconds:.1f}", "on one core")
    with printing():
        to = console(stderr=False)
        to.print(table)
        to.print(f"results: {out / SHEET}, {out / SCORES}")
        to.print(f"next:    msc-edge score {shlex.quote(str(out / KIT))} IMAGES")


def _expected(alarms: "Alarms") -> str:
    low, high = alarms.interval
    return f"expected {alarms.expected_rate:.1%}: {low} to {high}"
