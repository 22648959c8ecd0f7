"""The report of a scored folder: how many got which verdict, how the scores are spread, the strangest to look at."""

from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from msc_edge.kit import Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.display import describe_limits
from msc_edge.runtime.folder import Row, Summary
from msc_edge.runtime.report.gallery import card
from msc_edge.runtime.report.page import Gallery, write_page
from msc_edge.runtime.report.plots import SOME, Scores, histogram
from msc_edge.runtime.rows import path_as_written

_UNREADABLE = 50  # shown with their reasons


class ScoreReport:
    """What a report needs of the rows: eight bytes of each, and the few that are shown whole."""

    def __init__(self, *, gallery: int = 24) -> None:
        """`gallery` of the strangest will be shown."""
        self._gallery = gallery
        self._summary = Summary()
        self._scores = array("d")

    def add(self, row: Row) -> None:
        """Count a row."""
        self._summary.add(row, keep=max(self._gallery, _UNREADABLE))
        if row.score is not None:
            self._scores.append(row.score)

    def write(self, path: Path, detector: Detector, kit: Kit, pictures: Iterable[Path]) -> None:
        """Write the page, whole or not at all. OutputError from the disk.

        `pictures` are those that were found: a row has the path as it is written, which need not be one to open.
        """
        summary, limits = self._summary, detector.limits
        strangest = summary.strangest[: self._gallery]
        written = {row.path for row in strangest}
        files = {name: each for each in pictures if (name := path_as_written(each)) in written}
        cards = [
            card(detector, kit, files.get(name := path_as_written(row.path), Path(row.path)), row, name=name)
            for row in strangest
        ]
        spread = Scores("pictures", np.frombuffer(self._scores), SOME) if self._scores else None
        write_page(
            path,
            "scores.html.j2",
            kit=kit,
            precision=detector.precision,
            galleries=[Gallery("The strangest", "The largest score first.", summary.scored, cards)] if cards else [],
            summary=summary,
            unreadable=summary.first_unreadable[:_UNREADABLE],
            limits=list(describe_limits(limits, detector.calibration)),
            histogram=histogram([spread], limits) if spread else None,
        )
