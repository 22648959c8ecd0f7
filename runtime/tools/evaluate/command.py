"""`msc-edge evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msc_edge.runtime.option_types import FalseAlarmRate, LearnedOption, PrecisionOption, Threshold
from msc_edge.runtime.tools.evaluate.label_options import Abnormal, Dataset, Normal, labelled_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from msc_edge.runtime.tools.evaluate.evaluation import AtLimit, Evaluation
    from msc_edge.runtime.tools.evaluate.masks import MapEvaluationResult


def evaluate(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    dataset: Dataset = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for evaluation.json, scores.csv and report.html.")
    ] = Path("evaluation"),
    normal: Normal = None,
    abnormal: Abnormal = None,
    threshold: Threshold = None,
    false_alarm_rate: FalseAlarmRate = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples for the intervals.")] = 1000,
    gallery: Annotated[
        int,
        typer.Option(
            min=0,
            max=500,
            metavar="N",
            help="Images in each gallery of the report; the best and the worst heatmaps share one.",
        ),
    ] = 12,
    precision: PrecisionOption = None,
    learned: LearnedOption = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Images scored in parallel.", show_default="all cores")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation.")] = False,
) -> None:
    """Evaluate a kit on labelled images: metrics with intervals, and a report.

    Exit codes: 0 done, whatever the result, 2 usage, 3 images cannot be found or read,
    4 the kit cannot be used, 5 output cannot be written, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.tools.evaluate.run import evaluate as evaluate_kit

    images = labelled_images(dataset, normal, abnormal)
    with progress_bars() as report:
        evaluation = evaluate_kit(
            kit,
            images,
            out,
            threshold=threshold,
            false_alarm_rate=false_alarm_rate,
            resamples=resamples,
            gallery=gallery,
            precision=None if precision == "auto" else precision,
            learned=learned,
            threads=threads,
            overwrite=overwrite,
            report=report,
        )
    _show(evaluation, out, learned=learned)


def _show(evaluation: "Evaluation", out: Path, *, learned: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from msc_edge.runtime.tools.evaluate.metrics import METRICS
    from msc_edge.terminal import console, printing
    from msc_edge.text import many, one_line, percent

    metrics = Table(title="Over all thresholds", title_justify="left", title_style="bold")
    for name in ("", "value", "95 % interval"):
        metrics.add_column(name, justify="left" if not name else "right")
    for name, metric in evaluation.metrics.items():
        metrics.add_row(METRICS[name].title, f"{metric.value:.4f}", f"{metric.low:.4f} to {metric.high:.4f}")
    types = Table(title="Defect types", title_justify="left", title_style="bold")
    types.add_column("", overflow="fold")
    for name in ("images", "AUROC", "average\nprecision", "warned or\nrejected", "rejected"):
        types.add_column(name, justify="right", no_wrap=True)
    for each in evaluation.defect_types:
        ranked = [f"{value:.4f}" if value is not None else "-" for value in (each.auroc, each.average_precision)]
        counts = [str(count) for count in (each.images, each.warned, each.rejected)]
        types.add_row(Text(one_line(each.name)), counts[0], *ranked, *counts[1:])
    with printing():
        to = console(stderr=False)
        to.print(metrics)
        to.print(types)
        if evaluation.maps:
            to.print(_maps_table(evaluation.maps))
        for name, limit in (("warn", evaluation.warn), ("reject", evaluation.reject)):
            to.print(_at_limit(name, limit))
        if regions := evaluation.regions:
            low, high = regions.interval
            to.print(
                f"regions, map above {regions.limit:.6f}: {regions.with_region} of "
                f"{many(regions.normal_images, 'normal image')} have one (expected {percent(regions.expected_rate)}, "
                f"90 % interval {low} to {high})"
            )
        for note in _notes(evaluation, learned=learned):
            to.print(note)
        to.print(f"report: {one_line(str(out / 'report.html'))}")


def _notes(evaluation: "Evaluation", *, learned: bool) -> "Iterator[str]":
    from msc_edge.runtime.results.fields import describe_learned
    from msc_edge.text import many, one_line

    if evaluation.unreadable:
        yield f"left out: {many(len(evaluation.unreadable), 'unreadable image')}; the report gives the reasons"
    if evaluation.in_bank:
        place = "in the kit's memory bank, or learned" if evaluation.learned else "in the kit's memory bank"
        yield (
            f"caution: found {place}: {many(evaluation.in_bank, 'image')} of the data set; their scores are near 0, "
            "with or without a defect, so the metrics are too good"
        )
    if evaluation.ignored_folders:
        yield one_line(f"ignored folders, by name: {', '.join(evaluation.ignored_folders)}")
    if evaluation.other_files:
        yield f"{many(evaluation.other_files, 'other file')} skipped"
    if evaluation.models > 1:
        yield f"model: {evaluation.model} (the kit has another one; --precision selects)"
    if learned:
        yield describe_learned(evaluation.learned, evaluation.learned_sha256)


def _maps_table(maps: "MapEvaluationResult") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from msc_edge.text import one_line

    left_out = f"; {maps.without_mask} images have none" if maps.without_mask else ""
    title = f"Heatmaps against the masks of {maps.images} images{left_out}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", overflow="fold")
    for name in ("pixel\nAUROC", "AU-PRO\n(0.3)", "AU-PRO\n(0.05)", "AUPIMO"):
        table.add_column(name, justify="right", no_wrap=True)

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    for each in maps.defect_types:
        values = (each.pixel_auroc, each.au_pro_30, each.au_pro_5, each.aupimo)
        table.add_row(Text(one_line(each.name)), *map(text, values))
    table.add_section()
    overall = (maps.pixel_auroc, maps.au_pro_30, maps.au_pro_5, maps.aupimo)
    table.add_row("all", *(text(each and each.value) for each in overall))
    if not maps.aupimo_is_resolved:
        table.caption, table.caption_justify = "AUPIMO is not resolved: too few pixels in the normal images", "left"
    return table


def _at_limit(name: str, limit: "AtLimit") -> str:
    from msc_edge.text import many, percent

    rate = "set by hand"
    if limit.interval and limit.expected_rate is not None:
        low, high = limit.interval
        rate = f"expected {percent(limit.expected_rate)}, 90 % interval {low} to {high}: {limit.comparison}"
    return (
        f"{name}, score above {limit.score:.6f}: {limit.false_alarms} false alarms in "
        f"{many(limit.normal_images, 'normal image')} ({rate}); misses {limit.missed} of "
        f"{many(limit.anomalous_images, 'anomalous image')}"
    )
