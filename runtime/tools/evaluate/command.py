"""`msc-edge evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from msc_edge.runtime.tools.evaluate.evaluation import AtLimit, Evaluation


def evaluate(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    dataset: Annotated[
        Path | None,
        typer.Argument(metavar="[DATASET]", help="A data set with test/good and test/<defect>.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for evaluation.json, scores.csv and report.html.")
    ] = Path("evaluation"),
    normal: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Or a folder of good images; may be repeated.")
    ] = None,
    abnormal: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="With folders of defective ones; each is a kind, by its own name."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Reject scores above this one, instead of the kit's limit.")
    ] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Reject at most this share of good images, such as 0.01.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples behind the intervals.")] = 1000,
    gallery: Annotated[
        int, typer.Option(min=0, max=500, metavar="N", help="Images in each gallery of the report.")
    ] = 12,
    precision: Annotated[
        Literal["auto", "fp32", "int8"] | None,
        typer.Option(help="Model to evaluate, with its own limits.", show_default="the kit's"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Images scored at once; all cores by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation there.")] = False,
) -> None:
    """Say how good a kit is on images whose truth is known, with a report to hand on.

    Exit codes: 0 done, however good or bad the kit is, 2 usage, 3 images cannot be
    found or read, 4 kit, 5 output cannot be written, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from msc_edge.errors import UsageError, extras_named
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset, labelled_folders

    with extras_named():
        from msc_edge.runtime.tools.evaluate.run import run_evaluation

    if (dataset is None) == (not normal and not abnormal):
        raise UsageError("name either a DATASET with test/good, or --normal DIR and --abnormal DIR")
    images = labelled_dataset(dataset) if dataset else labelled_folders(normal or [], abnormal or [])
    with progress_bars() as report:
        evaluation = run_evaluation(
            kit,
            images,
            out,
            threshold=threshold,
            false_alarm_rate=false_alarm_rate,
            resamples=resamples,
            gallery=gallery,
            precision=precision,
            threads=threads,
            overwrite=overwrite,
            report=report,
        )
    _show(evaluation, out)


def _show(evaluation: "Evaluation", out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from msc_edge.runtime.tools.display import console, to_standard_output
    from msc_edge.runtime.tools.evaluate.metrics import METRICS
    from msc_edge.text import many, one_line

    figures = Table(title="Over all thresholds", title_justify="left", title_style="bold")
    for name in ("", "value", "95 % interval"):
        figures.add_column(name, justify="left" if not name else "right")
    for name, figure in evaluation.figures.items():
        figures.add_row(METRICS[name].words, f"{figure.value:.4f}", f"{figure.low:.4f} to {figure.high:.4f}")
    kinds = Table(title="Kinds of defects", title_justify="left", title_style="bold")
    kinds.add_column("", overflow="fold")
    for name in ("images", "AUROC", "average\nprecision", "warned or\nrejected", "rejected"):
        kinds.add_column(name, justify="right", no_wrap=True)
    for kind in evaluation.kinds:
        ranked = [f"{value:.4f}" if value is not None else "-" for value in (kind.auroc, kind.average_precision)]
        counts = [str(count) for count in (kind.images, kind.warned, kind.rejected)]
        kinds.add_row(Text(one_line(kind.label)), counts[0], *ranked, *counts[1:])
    with to_standard_output():
        to = console(stderr=False)
        to.print(figures)
        to.print(kinds)
        for name, limit in (("warn", evaluation.warn), ("reject", evaluation.reject)):
            to.print(_at_limit(name, limit))
        if evaluation.unreadable:
            to.print(f"left out: {many(len(evaluation.unreadable), 'image')} that cannot be read; the report says why")
        if evaluation.in_bank:
            to.print(
                f"{many(evaluation.in_bank, 'image')} of these the kit has learnt from, and finds normal whatever "
                "they show: the figures are too good"
            )
        if evaluation.ignored_folders:
            to.print(
                one_line(f"no kinds of defects, by name, and passed over: {', '.join(evaluation.ignored_folders)}")
            )
        if evaluation.other_files:
            to.print(f"{many(evaluation.other_files, 'other file')} passed over")
        if evaluation.models > 1:
            to.print(f"model: {evaluation.precision}, one of two; --precision settles which")
        to.print(f"look at: {one_line(str(out / 'report.html'))}")


def _at_limit(name: str, limit: "AtLimit") -> str:
    from msc_edge.text import many, percent

    promise = "set by hand, which promises nothing"
    if limit.band and limit.expected_rate is not None:
        expected = f"{percent(limit.expected_rate)} promised, {limit.band[0]} to {limit.band[1]} of as many"
        promise = f"{expected}: {limit.kept}"
    return (
        f"{name}, score above {limit.score:.6f}: flags {limit.false_alarms} of {many(limit.good, 'good image')} "
        f"({promise}); misses {limit.missed} of {limit.defective} defective"
    )
