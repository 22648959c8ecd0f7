"""The whole of `msc-edge evaluate`, for Python users: score, compute, write."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from msc_edge.files import folder_written_whole
from msc_edge.kit import Kit
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.evaluation.dataset import Labelled
from msc_edge.runtime.evaluation.evaluation import Evaluation, Scored, evaluate, score_labelled
from msc_edge.runtime.evaluation.figures import RESAMPLES
from msc_edge.runtime.report.gallery import Card, card
from msc_edge.runtime.report.page import NAMES, Gallery, drawn, write_page
from msc_edge.runtime.report.plots import histogram, roc
from msc_edge.runtime.table import ScoreTable
from msc_edge.text import one_line

JSON, SCORES, REPORT = "evaluation.json", "scores.csv", "report.html"


def run_evaluation(
    kit: Path,
    pictures: Sequence[Labelled],
    out: Path,
    *,
    threshold: float | None = None,
    false_alarm_rate: float | None = None,
    resamples: int = RESAMPLES,
    gallery: int = 12,
    threads: int | None = None,
    overwrite: bool = False,
    report: Report = silent,
) -> Evaluation:
    """Evaluate a kit and write evaluation.json, scores.csv and report.html into the folder `out`.

    The folder is there when all of it is. Raises KitError, SourceError when pictures are missing, UsageError when `out`
    is taken, OutputError when it cannot be written.
    """
    with Kit.open(kit) as opened, folder_written_whole(out, replace=overwrite) as folder:
        detector = Detector.of(opened, threads=1).with_limits(threshold=threshold, false_alarm_rate=false_alarm_rate)
        scored, unread = score_labelled(detector, pictures, threads=threads, report=report)
        with ScoreTable.create(folder / SCORES) as table:
            for row in (*(each.row for each in scored), *unread):
                table.write(row)
        evaluation = evaluate(detector, scored, unread, kit_sha256=opened.sha256, resamples=resamples, report=report)
        (folder / JSON).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _write_report(folder / REPORT, evaluation, scored, detector, opened, gallery)
    return evaluation


def _write_report(
    path: Path, evaluation: Evaluation, scored: Sequence[Scored], detector: Detector, kit: Kit, most: int
) -> None:
    good = [each for each in scored if not each.picture.is_defect]
    bad = [each for each in scored if each.picture.is_defect]
    limits = detector.limits
    false, true, _ = roc_curve([each.picture.is_defect for each in scored], [each.score for each in scored])
    marks = {
        name: (limit.false_alarms / limit.good, 1 - limit.missed / limit.defective)
        for name, limit in (("warn", evaluation.warn), ("reject", evaluation.reject))
    }
    write_page(
        path,
        "evaluation.html.j2",
        galleries=_galleries(good, bad, detector, kit, most),
        evaluation=evaluation,
        kit=one_line(Path(kit.name).name),
        backbone=one_line(kit.manifest.model.backbone),
        normals=kit.manifest.bank.count,
        date=date.today().isoformat(),
        figure_names=NAMES,
        histogram=drawn(
            histogram(
                {
                    "good": np.array([each.score for each in good]),
                    "defective": np.array([each.score for each in bad]),
                },
                limits={"warn": limits.warn.score, "reject": limits.reject.score},
            )
        ),
        roc=drawn(roc(false.tolist(), true.tolist(), marks=marks)),
    )


def _galleries(good: Sequence[Scored], bad: Sequence[Scored], detector: Detector, kit: Kit, most: int) -> list[Gallery]:
    limit = detector.limits.reject.score
    missed = sorted((each for each in bad if each.score <= limit), key=lambda each: each.score)
    alarms = sorted((each for each in good if each.score > limit), key=lambda each: -each.score)
    caught = sorted((each for each in bad if each.score > limit), key=lambda each: -each.score)

    def cards(chosen: Sequence[Scored]) -> list[Card]:
        made = (card(detector, kit, each.picture.path, label=each.picture.label) for each in chosen[:most])
        return [each for each in made if each]

    beside = "On the left the picture, on the right the normal pictures most like it, which it was compared with."
    return [
        (title, f"{len(chosen)} in all; the first {min(most, len(chosen))} are shown, {order}. {beside}", cards(chosen))
        for title, order, chosen in (
            ("Worst misses", "the most normal-looking first", missed),
            ("Worst false alarms", "the strangest first", alarms),
            ("Defects that were caught", "the strangest first", caught),
        )
        if chosen and most
    ]
