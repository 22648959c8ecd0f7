"""The report of a scored folder: counts of verdicts, the distribution of the scores, the most anomalous images."""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from msc_edge.describe import describe_limits, describe_regions
from msc_edge.kit.opening import Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.formats import path_as_written
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.summary import Summary
from msc_edge.runtime.tools.report.gallery import Gallery, card
from msc_edge.runtime.tools.report.page import write_page
from msc_edge.runtime.tools.report.plots import NEUTRAL, Scores, histogram

_UNREADABLE = 50  # shown with their reasons


class ScoreReport:
    """Collects what the report needs: eight bytes for each image, and the few that are shown."""

    def __init__(self, *, gallery: int = 24) -> None:
        """`gallery`: how many of the most anomalous images are shown."""
        self._summary = Summary(keep=gallery, keep_unreadable=_UNREADABLE)
        self._scores = array("d")
        self._folder: str | None = None

    def wants_thumbnail(self, image: ImageResult) -> bool:
        """Whether the image may be shown; for `score_images`."""
        return image.result is not None and self._summary.would_keep(image.result.score)

    def add(self, image: ImageResult) -> None:
        """Count an image."""
        self._summary.add(image)
        folder = os.path.dirname(os.path.abspath(image.path))  # noqa: PTH100, PTH120  (of every image: pathlib is slow)
        self._folder = folder if self._folder is None else _common(self._folder, folder)
        if image.result is not None:
            self._scores.append(image.result.score)

    def write(self, path: Path, detector: Detector, kit: Kit, *, earlier_rows: float | None = None) -> None:
        """Write the page, whole or not at all. OutputError from the disk. `earlier_rows`: see `card`."""
        summary, limits = self._summary, detector.limits
        cards = [
            card(kit, image, name=self._name(image), detector=detector, earlier_rows=earlier_rows)
            for image in summary.most_anomalous
        ]
        scores = Scores("images", np.frombuffer(self._scores), NEUTRAL) if self._scores else None
        write_page(
            path,
            "scores.html.j2",
            kit=kit,
            detector=detector,
            galleries=[Gallery("Most anomalous images", "Largest score first.", summary.scored, cards)]
            if cards
            else [],
            summary=summary,
            folder=path_as_written(PurePath(self._folder).name) if self._folder else "",
            unreadable=[(self._name(image), image.error) for image in summary.first_unreadable],
            limits=[*describe_limits(limits, detector.calibration), *_describe_map(detector)],
            histogram=histogram([scores], limits) if scores else None,
        )

    def _name(self, image: ImageResult) -> str:
        """The path within the folder that holds all images, with `/`."""
        path = PurePath(os.path.abspath(image.path))  # noqa: PTH100
        name = path.relative_to(self._folder) if self._folder else path.relative_to(path.anchor)
        return path_as_written(name.as_posix())


def _common(one: str, other: str) -> str:
    """The folder that holds both; "" for two drives of Windows."""
    if one == other:
        return one
    try:
        return os.path.commonpath((one, other)) if one else ""
    except ValueError:
        return ""


def _describe_map(detector: Detector) -> Iterator[tuple[str, str]]:
    if regions := detector.regions:
        yield "heatmap", f"{describe_regions(regions.limit, regions.calibration)}. In heatmaps this limit is yellow."
