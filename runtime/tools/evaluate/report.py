"""The report of an evaluation: one page to hand to who has to decide."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from msc_edge.kit.opening import Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.evaluate.evaluation import AtLimit, Evaluation, Scored
from msc_edge.runtime.tools.evaluate.metrics import METRICS
from msc_edge.runtime.tools.report.gallery import Card, card
from msc_edge.runtime.tools.report.page import Gallery, write_page
from msc_edge.runtime.tools.report.plots import BAD, GOOD, Scores, histogram, roc


def write_report(
    path: Path, evaluation: Evaluation, read: Sequence[Scored], detector: Detector, kit: Kit, *, gallery: int
) -> None:
    """Write the page, whole or not at all, with `gallery` images in each gallery. OutputError from the disk."""
    good = [each for each in read if not each.image.is_defect]
    bad = [each for each in read if each.image.is_defect]
    drawn = histogram(
        (
            Scores("good parts", np.array([each.score for each in good]), GOOD),
            Scores("defective parts", np.array([each.score for each in bad]), BAD),
        ),
        detector.limits,
    )
    false, true, _ = roc_curve([each.image.is_defect for each in read], [each.score for each in read])
    write_page(
        path,
        "evaluation.html.j2",
        kit=kit,
        precision=detector.precision,
        galleries=_galleries(good, bad, detector, kit, gallery),
        evaluation=evaluation,
        limits={"warn": evaluation.warn, "reject": evaluation.reject},
        figures=[(METRICS[name], interval) for name, interval in evaluation.figures.items()],
        histogram=drawn,
        roc=roc(false, true, marks={"warn": _place(evaluation.warn), "reject": _place(evaluation.reject)}),
    )


def _place(limit: AtLimit) -> tuple[float, float]:
    """Where a limit stands in the ROC curve."""
    return limit.false_alarms / limit.good, 1 - limit.missed / limit.defective


def _galleries(good: Sequence[Scored], bad: Sequence[Scored], detector: Detector, kit: Kit, most: int) -> list[Gallery]:
    limit = detector.limits.reject.score
    flagged = min(limit, detector.limits.warn.score)
    missed = sorted((each for each in bad if each.score <= limit), key=lambda each: each.score)
    alarms = sorted((each for each in good if each.score > flagged), key=lambda each: -each.score)
    caught = sorted((each for each in bad if each.score > limit), key=lambda each: -each.score)

    def cards(chosen: Sequence[Scored]) -> list[Card]:
        return [
            card(detector, kit, each.image.path, each.row, name=each.image.name, label=f"truth: {each.image.label}")
            for each in chosen[:most]
        ]

    return [
        Gallery(title, order if chosen else none, len(chosen), cards(chosen))
        for title, order, none, chosen in (
            (
                "Worst misses",
                "Defective parts that are not rejected, the most normal-looking first.",
                "Every defective part was rejected.",
                missed,
            ),
            (
                "Worst false alarms",
                "Good parts that are rejected, or warned of, the most_anomalous first.",
                "No good part was rejected or warned of.",
                alarms,
            ),
            (
                "Defects that were caught",
                "Defective parts that are rejected, the most_anomalous first.",
                "No defective part was rejected.",
                caught,
            ),
        )
    ]
