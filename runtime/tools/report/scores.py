"""The report of a scored folder: how many got which verdict, how the scores are spread, the most_anomalous to look at."""

from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from msc_edge.kit.opening import Kit
from msc_edge.runtime.batch import Row, Summary
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.rows import path_as_written
from msc_edge.runtime.tools.display import describe_limits
from msc_edge.runtime.tools.report.gallery import card
from msc_edge.runtime.tools.report.page import Gallery, write_page
from msc_edge.runtime.tools.report.plots import SOME, Scores, histogram

_UNREADABLE = 50  # shown with their reasons


class ScoreReport:
    """What a report needs of the rows: eight bytes of each, and the few that are shown whole."""

    def __init__(self, *, gallery: int = 24) -> None:
        """`gallery` of the most_anomalous will be shown."""
        self._gallery = gallery
        self._summary = Summary()
        self._scores = array("d")

    def add(self, row: Row) -> None:
        """Count a row."""
        self._summary.add(row, keep=max(self._gallery, _UNREADABLE))
        if row.score is not None:
            self._scores.append(row.score)

    def write(self, path: Path, detector: Detector, kit: Kit, images: Iterable[Path]) -> None:
        """Write the page, whole or not at all. OutputError from the disk.

        `images` are those that were found: a row has the path as it is written, which need not be one to open.
        """
        summary, limits = self._summary, detector.limits
        most_anomalous = summary.most_anomalous[: self._gallery]
        written = {row.path for row in most_anomalous}
        files = {name: each for each in images if (name := path_as_written(each)) in written}
        cards = [
            card(detector, kit, files.get(name := path_as_written(row.path), Path(row.path)), row, name=name)
            for row in most_anomalous
        ]
        spread = Scores("images", np.frombuffer(self._scores), SOME) if self._scores else None
        write_page(
            path,
            "scores.html.j2",
            kit=kit,
            precision=detector.precision,
            galleries=[Gallery("The most_anomalous", "The largest score first.", summary.scored, cards)]
            if cards
            else [],
            summary=summary,
            unreadable=summary.first_unreadable[:_UNREADABLE],
            limits=list(describe_limits(limits, detector.calibration)),
            histogram=histogram([spread], limits) if spread else None,
        )
