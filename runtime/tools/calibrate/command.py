"""`msc-edge calibrate`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from msc_edge.runtime.tools.calibrate.recalibration import Drift, NewLimits, Recalibration


def calibrate(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    normal: Annotated[Path, typer.Option(metavar="DIR", help="Folder of good images, fresh from the line.")],
    out: Annotated[Path | None, typer.Option(metavar="NEWKIT", help="Kit folder to write.", show_default=False)] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Or replace KIT itself.")] = False,
    warn_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Share of good parts that may be flagged 'warn' or worse.", show_default="the kit's"
        ),
    ] = None,
    reject_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Share of good parts that may be flagged 'reject'.", show_default="the kit's"
        ),
    ] = None,
    why: Annotated[
        str, typer.Option(metavar="TEXT", help="For the kit's history, such as 'new lamp'.")
    ] = "fresh good images",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Images scored at once; all cores by default.", show_default=False)
    ] = None,
) -> None:
    """Set the limits of a kit anew, by good images from the line; and say whether the line has changed.

    With neither --out nor --in-place nothing is written.
    """
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.tools.calibrate.recalibration import calibrate as calibrate_kit
    from msc_edge.runtime.tools.display import console, to_standard_output
    from msc_edge.text import valid_text

    with progress_bars() as report:
        found = calibrate_kit(
            kit,
            normal,
            out=out,
            in_place=in_place,
            warn_rate=warn_rate,
            reject_rate=reject_rate,
            why=valid_text(why),
            threads=threads,
            report=report,
        )
    _show_left_out(console(stderr=True), found)
    with to_standard_output():
        _show(console(stderr=False), found)


def _show_left_out(to: "Console", found: "Recalibration") -> None:
    from msc_edge.text import many, one_line

    unread, copies, in_bank = found.fresh.unreadable, found.fresh.copies, found.fresh.in_bank
    for row in unread[:5]:
        to.print(one_line(f"left out, unreadable: {row.path}: {row.error}"))
    if len(unread) > 5:
        to.print(f"left out, unreadable: and {len(unread) - 5} more")
    if copies:
        to.print(one_line(f"left out, exact copies of others: {len(copies)}, the first {copies[0].path}"))
    if in_bank:
        to.print(
            one_line(
                f"left out, {many(len(in_bank), 'image')} that the kit has in its bank, the first {in_bank[0].path}: "
                "their scores say nothing; take images that it was not trained on"
            )
        )


def _show(to: "Console", found: "Recalibration") -> None:
    from msc_edge.runtime.batch import Summary
    from msc_edge.runtime.tools.display import show_most_anomalous
    from msc_edge.text import one_line

    summary = Summary()
    for row in found.fresh.scored:
        summary.add(row, keep=5)
    show_most_anomalous(to, summary)
    to.print("one defective part among them would move the limits: look at the first of these")
    for precision, new in found.limits.items():
        _show_limits(to, precision if len(found.limits) > 1 else "", new)
    if found.written is None:
        to.print("nothing was written: pass --out NEWKIT or --in-place to put the new limits in force")
    else:
        place = shlex.quote(str(found.written))
        to.print(one_line(f"{place}: has the new limits; a stream that runs takes them with: msc-edge reload"))


def _show_limits(to: "Console", precision: str, new: "NewLimits") -> None:
    from rich.table import Table

    from msc_edge.runtime.tools.display import show_limits
    from msc_edge.text import many, percent

    before, after = new.before, new.after
    table = Table(title=f"Limits of {precision}" if precision else "Limits", title_justify="left", title_style="bold")
    for name in ("", "old", "new"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("set", before.created, str(after.created))
    table.add_row("by", many(before.count, "image"), many(len(after.scores), "image"))
    table.add_row("warn rate", percent(before.warn_rate), percent(after.warn_rate))
    table.add_row("reject rate", percent(before.reject_rate), percent(after.reject_rate))
    table.add_row("warn above", f"{before.limits.warn.score:.6f}", f"{after.limits.warn.score:.6f}")
    table.add_row("reject above", f"{before.limits.reject.score:.6f}", f"{after.limits.reject.score:.6f}")
    to.print(table)
    to.print("the fresh images by the old limits")
    for name, drift in (("warn", new.warn), ("reject", new.reject)):
        to.print(f"  {name:<10} {_describe(drift)}")
    to.print("with the new ones in force")
    show_limits(to, after.limits, after.calibrated)


def _describe(drift: "Drift") -> str:
    from msc_edge.text import percent

    counted = f"{drift.flagged} of {drift.images} flagged"
    if drift.band is None or drift.limit.expected_rate is None:
        return f"{counted}; the limit was set by hand and promises nothing"
    least, most = drift.band
    promised = f"promised {percent(drift.limit.expected_rate)}, so {least} to {most} of them with 90 % certainty"
    if drift.flagged > most:
        return f"{counted}, {promised}: MORE; the line has changed, or these images are not all good"
    if drift.flagged < least:
        return f"{counted}, {promised}: fewer; the line has changed, or these images are much alike"
    return f"{counted}, {promised}: as promised"
