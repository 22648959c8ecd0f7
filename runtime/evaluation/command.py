"""`msc-edge evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msc_edge.runtime.evaluation.evaluation import Evaluation


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
        list[Path] | None, typer.Option(metavar="DIR", help="Or a folder of good pictures; may be repeated.")
    ] = None,
    abnormal: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="With folders of defective ones; each is a kind, by its own name."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Reject scores above this one, instead of the kit's limit.")
    ] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Reject at most this share of good pictures, such as 0.01.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples behind the intervals.")] = 1000,
    gallery: Annotated[int, typer.Option(min=0, help="Pictures in each gallery of the report.")] = 12,
    threads: Annotated[int | None, typer.Option(min=1, help="Pictures scored at once; all cores by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation there.")] = False,
) -> None:
    """Say how good a kit is on pictures whose truth is known, with a report to hand on."""
    from msc_edge.errors import UsageError, extras_named
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.evaluation.dataset import labelled_folders, labelled_pictures

    with extras_named():
        from msc_edge.runtime.evaluation.run import run_evaluation

    if (dataset is None) == (not normal and not abnormal):
        raise UsageError("name a DATASET with test/good, or --normal DIR and --abnormal DIR")
    pictures = labelled_pictures(dataset) if dataset else labelled_folders(normal or [], abnormal or [])
    with progress_bars() as report:
        evaluation = run_evaluation(
            kit,
            pictures,
            out,
            threshold=threshold,
            false_alarm_rate=false_alarm_rate,
            resamples=resamples,
            gallery=gallery,
            threads=threads,
            overwrite=overwrite,
            report=report,
        )
    _show(evaluation, out)


def _show(evaluation: "Evaluation", out: Path) -> None:
    from rich.table import Table

    from msc_edge.runtime.display import console, to_standard_output
    from msc_edge.runtime.text import many, percent

    table = Table(title="Over all thresholds", title_justify="left", title_style="bold")
    for name in ("", "value", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    names = {"tpr_at_1_fpr": "TPR at 1 % FPR", "tpr_at_5_fpr": "TPR at 5 % FPR", "auroc": "AUROC", "best_f1": "best F1"}
    for name, figure in evaluation.figures.items():
        words = names.get(name, name.replace("_", " "))
        table.add_row(words, f"{figure.value:.4f}", f"{figure.low:.4f} to {figure.high:.4f}")
    kinds = Table(title="Kinds of defects", title_justify="left", title_style="bold")
    for name in ("", "pictures", "AUROC", "average precision", "warned or rejected", "rejected"):
        kinds.add_column(name, justify="left" if not name else "right")
    for kind in evaluation.classes:
        kinds.add_row(
            kind.label,
            str(kind.pictures),
            f"{kind.auroc:.4f}",
            f"{kind.average_precision:.4f}",
            str(kind.warned),
            str(kind.rejected),
        )
    with to_standard_output():
        to = console(stderr=False)
        to.print(table)
        to.print(kinds)
        for name, limit in (("warn", evaluation.warn), ("reject", evaluation.reject)):
            promise = "promises nothing"
            if limit.band and limit.promised_rate is not None:
                kept = "kept" if limit.keeps_promise else "NOT kept"
                promise = f"promised {percent(limit.promised_rate)}: {limit.band[0]} to {limit.band[1]}, {kept}"
            to.print(
                f"{name}: flags {limit.false_alarms} of {many(limit.good, 'good picture')} ({promise}), "
                f"misses {limit.missed} of {limit.defective} defective"
            )
        if evaluation.unreadable:
            to.print(
                f"left out, for they cannot be read: {many(len(evaluation.unreadable), 'picture')}, see the report"
            )
        to.print(f"look at: {out / 'report.html'}")
