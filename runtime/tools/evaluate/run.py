"""The whole of `msc-edge evaluate`, for Python users: score, compute, write."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msc_edge.errors import UsageError
from msc_edge.files import folder_written_whole, kind_of
from msc_edge.kit.manifest import PrecisionChoice
from msc_edge.kit.opening import Kit
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.table import ScoreTable
from msc_edge.runtime.tools.evaluate.evaluation import Evaluation, Scored, evaluate, score_labelled
from msc_edge.runtime.tools.evaluate.labelled import DataSet
from msc_edge.runtime.tools.evaluate.metrics import RESAMPLES
from msc_edge.runtime.tools.evaluate.report import write_report
from msc_edge.runtime.tools.report.report_path import check_writable

JSON, SCORES, REPORT = "evaluation.json", "scores.csv", "report.html"


def run_evaluation(
    kit: Path,
    dataset: DataSet,
    out: Path,
    *,
    threshold: float | None = None,
    false_alarm_rate: float | None = None,
    resamples: int = RESAMPLES,
    gallery: int = 12,
    precision: PrecisionChoice | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    report: Report = silent,
) -> Evaluation:
    """Evaluate a kit and write evaluation.json, scores.csv and report.html into the folder `out`.

    The folder is there when all of it is. `overwrite` replaces an earlier evaluation, and nothing else. `gallery` is
    the number of images in each gallery of the report; for `threshold` and `false_alarm_rate` see
    Detector.with_limits. Raises KitError, SourceError when the images cannot be read, UsageError when `out` is
    taken, or lies within the kit or the data set, and OutputError when it cannot be written.
    """
    _check_place(out, (kit, *dataset.folders), overwrite=overwrite)
    with Kit.open(kit) as opened:
        detector = Detector.of(opened, threads=1, precision=precision).with_limits(
            threshold=threshold, false_alarm_rate=false_alarm_rate
        )
        check_writable(out.parent, what=out)
        read, unread = score_labelled(detector, dataset.images, threads=threads, report=report)
        evaluation = evaluate(
            detector,
            read,
            unread,
            kit_sha256=opened.sha256,
            other_files=dataset.other_files,
            ignored_folders=dataset.ignored_folders,
            resamples=resamples,
            report=report,
        )
        with folder_written_whole(out, replace=overwrite) as folder:
            _write_scores(folder / SCORES, (*read, *unread))
            (folder / JSON).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
            write_report(folder / REPORT, evaluation, read, detector, opened, gallery=gallery)
    return evaluation


def _check_place(out: Path, taken: Sequence[Path], *, overwrite: bool) -> None:
    """What is read must neither be written into nor be replaced."""
    place = out.resolve()
    for folder in map(Path.resolve, taken):
        if place.is_relative_to(folder):
            raise UsageError(f"--out {out}: lies within {folder}, which is only read; choose another place")
        if folder.is_relative_to(place):
            raise UsageError(f"--out {out}: holds {folder}, which would be replaced; choose another place")
    kind, _ = kind_of(out)
    there = {path.name for path in out.iterdir()} if kind == "folder" else {out.name} if kind else set()
    if there and not overwrite:
        raise UsageError(f"--out {out}: exists already; choose another name, or pass --overwrite to replace it")
    if others := there - {JSON, SCORES, REPORT}:
        raise UsageError(
            f"--out {out}: is not an evaluation and no more ({min(others)}), and --overwrite replaces nothing else; "
            "choose another name"
        )


def _write_scores(path: Path, images: Sequence[Scored]) -> None:
    with ScoreTable.create(path) as table:
        for each in sorted(images, key=lambda each: each.image.name):
            table.write(replace(each.row, path=each.image.name))
