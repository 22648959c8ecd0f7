"""`msc-edge calibrate`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msc_edge.deprecation import deprecated_option

if TYPE_CHECKING:
    from rich.console import Console

    from msc_edge.runtime.tools.calibrate.recalibration import Drift, NewLimits, Recalibration


def calibrate(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    normal: Annotated[Path, typer.Option(metavar="DIR", help="Folder of normal images, recently taken at the line.")],
    out: Annotated[Path | None, typer.Option(metavar="NEWKIT", help="Kit folder to write.", show_default=False)] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace KIT instead.")] = False,
    learned: Annotated[
        bool,
        typer.Option(
            "--learned",
            help="Compute the limits with what this station has learned for KIT (see msc-edge learn). Images that were "
            "learned are left out. With --in-place KIT stays as it is, and the limits count on this station.",
        ),
    ] = False,
    warn_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Target false-alarm rate of the warn limit; equal to --reject-rate: no warnings.",
            show_default="the kit's",
        ),
    ] = None,
    reject_rate: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Target false-alarm rate of the reject limit.", show_default="the kit's"),
    ] = None,
    region_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Target share of good parts with any region in the heatmap; not for kits that compare whole images.",
            show_default="the kit's",
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason for the kit's history, such as 'new lamp'.")
    ] = "new normal images",
    why: Annotated[
        str | None, typer.Option("--why", hidden=True, callback=deprecated_option("--why", "--reason"))
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Images scored in parallel.", show_default="all cores")
    ] = None,
) -> None:
    """Recompute the limits of a kit from new normal images, and report whether the line has changed.

    With neither --out nor --in-place nothing is written.

    Exit codes: 0 done, 2 usage, 3 images cannot be found, or are too few, 4 the kit cannot be used, 5 the new limits
    cannot be written.
    """
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.tools.calibrate.recalibration import calibrate as calibrate_kit
    from msc_edge.terminal import console, printing
    from msc_edge.text import valid_text

    with progress_bars() as report:
        found = calibrate_kit(
            kit,
            normal,
            out=out,
            in_place=in_place,
            warn_rate=warn_rate,
            reject_rate=reject_rate,
            region_rate=region_rate,
            learned=learned,
            reason=valid_text(reason if why is None else why),
            threads=threads,
            report=report,
        )
    _show_left_out(console(stderr=True), found)
    with printing():
        _show(console(stderr=False), found)


def _show_left_out(to: "Console", found: "Recalibration") -> None:
    from msc_edge.text import many, one_line

    unreadable, copies, in_bank = found.images.unreadable, found.images.copies, found.images.in_bank
    for image in unreadable[:5]:
        to.print(one_line(f"left out, unreadable: {image.path}: {image.error}"))
    if len(unreadable) > 5:
        to.print(f"left out, unreadable: {len(unreadable) - 5} more")
    if copies:
        to.print(one_line(f"left out, exact copies of others: {len(copies)}, the first is {copies[0].path}"))
    if in_bank:
        to.print(
            one_line(
                f"left out, in the kit's memory bank: {many(len(in_bank), 'image')}, the first is {in_bank[0].path}; "
                "use images that the kit was not trained on"
            )
        )
    if of_learned := found.images.learned:
        to.print(
            one_line(
                f"left out, learned at this station or of the part of a learned image: {many(len(of_learned), 'image')}"
                f", the first is {of_learned[0].path}"
            )
        )


def _show(to: "Console", found: "Recalibration") -> None:
    from msc_edge.runtime.results.summary import Summary
    from msc_edge.runtime.tools.score.tables import show_most_anomalous
    from msc_edge.text import many, one_line

    summary = Summary(keep=5)
    for image in found.images.scored:
        summary.add(image)
    show_most_anomalous(to, summary)
    to.print("check the first of these: one defective part among the images moves the limits")
    for precision, new in found.limits.items():
        _show_limits(to, precision if len(found.limits) > 1 else "", new, learned=found.learned is not None)
    if found.learned is not None:
        to.print(f"with {many(found.learned, 'image')} that this station has learned")
    if found.written is None:
        options = "--out NEWKIT or --in-place" if found.learned is None else "--in-place"
        to.print(f"nothing was written: pass {options} to use the new limits")
    elif found.learned is not None:
        to.print(
            one_line(
                f"{found.written} has the new limits, and running streams use them within a second. They count until "
                "one of these learned images is undone"
            )
        )
    else:
        place = shlex.quote(str(found.written))
        to.print(
            one_line(f"{place} has the new limits; a running stream loads them with: msc-edge reload --config FILE")
        )


def _show_limits(to: "Console", precision: str, new: "NewLimits", *, learned: bool) -> None:
    from rich.table import Table

    from msc_edge.runtime.tools.score.tables import show_limits
    from msc_edge.text import many, percent

    before, after = new.before, new.after
    table = Table(title=f"Limits of {precision}" if precision else "Limits", title_justify="left", title_style="bold")
    for name in ("", "old", "new"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("calibrated", before.created, str(after.created))
    table.add_row("with", many(before.count, "image"), many(len(after.scores), "image"))
    table.add_row("warn: target rate", percent(before.warn_rate), percent(after.warn_rate))
    table.add_row("reject: target rate", percent(before.reject_rate), percent(after.reject_rate))
    if after.regions:
        region_limit = before.region_limit
        old_rate = region_limit.target_rate if region_limit else None
        table.add_row("regions: target rate", percent(old_rate) if old_rate else "", percent(after.regions.rate))
    table.add_row("warn above", f"{before.limits.warn.score:.6f}", f"{after.limits.warn.score:.6f}")
    table.add_row("reject above", f"{before.limits.reject.score:.6f}", f"{after.limits.reject.score:.6f}")
    if before.region_limit and after.regions:
        table.add_row("regions: map above", f"{before.region_limit.score:.6f}", f"{after.regions.limit.score:.6f}")
    to.print(table)
    to.print("the new images at the old limits")
    for name, drift in (("warn", new.warn), ("reject", new.reject), ("regions", new.regions)):
        if drift:
            to.print(f"  {name:<10} {_describe(drift, learned=learned)}")
    to.print(f"  {'drift':<10} {_described_call(new)}")
    to.print("the new limits")
    show_limits(to, after.limits, after.calibration, after.regions)


_CHANGED = {"rise": "the scores rise", "fall": "the scores fall", "rejects": "more images are rejected"}


def _described_call(new: "NewLimits") -> str:
    from msc_edge.text import many

    if new.call is None:
        return f"none is called in the order of the names, by {many(new.tested, 'image')} of different parts"
    return (
        f"CALLED in the order of the names: {_CHANGED[new.call.change]}, most likely since image {new.call.since} of "
        f"{new.tested} of different parts; without a change this is seen once in a hundred times at most"
    )


def _describe(drift: "Drift", *, learned: bool) -> str:
    from msc_edge.text import percent

    counted = f"{drift.flagged} of {drift.images} flagged"
    lowest, highest = drift.interval
    assert drift.limit.expected_rate is not None, "the limits of a kit follow from its scores"
    expected = f"expected {percent(drift.limit.expected_rate)}, 90 % interval {lowest} to {highest}"
    if drift.flagged > highest:
        return f"{counted}, {expected}: ABOVE; the line has changed, or not all of these images are normal"
    if drift.flagged < lowest:
        lowers = "what was learned lowers scores, " if learned else ""
        return f"{counted}, {expected}: below; {lowers}the line has changed, or these images are very similar"
    return f"{counted}, {expected}: inside"
