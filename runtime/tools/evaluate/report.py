"""The report of an evaluation: one page for the person who decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.kit.opening import Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.summary import Largest
from msc_edge.runtime.tools.evaluate.evaluation import AtLimit, Evaluation, Scored
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset, LabelledImage
from msc_edge.runtime.tools.evaluate.map_gallery import map_galleries
from msc_edge.runtime.tools.evaluate.masks import MaskedImage
from msc_edge.runtime.tools.evaluate.metrics import METRICS, sklearn_metrics
from msc_edge.runtime.tools.report.gallery import Gallery, card
from msc_edge.runtime.tools.report.outcome import Truth
from msc_edge.runtime.tools.report.page import write_page
from msc_edge.runtime.tools.report.plots import DEFECT, NORMAL, Scores, histogram, roc

_RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)  # of false alarms: where factories work


@dataclass(frozen=True)
class OperatingPoint:
    """The most anomalous images that any limit finds with a limited number of false alarms."""

    rate: float
    """The largest share of normal images flagged."""
    false_alarms: int
    """The largest number of normal images flagged: `rate` of them, rounded down."""
    score: float
    """Scores above it are flagged."""
    found: int


def operating_points(normal: np.ndarray, anomalous: np.ndarray) -> list[OperatingPoint]:
    """For each false-alarm rate that a factory may accept, the limit with at most so many false alarms.

    `normal`, `anomalous`: scores, float64 (n,) and (m,), n >= 1. Rates with the same number of false alarms are one.
    """
    highest = np.sort(normal)[::-1]
    points = {}
    for rate in _RATES:
        alarms = int(rate * len(highest) + 1e-9)
        score = float(highest[alarms])
        points.setdefault(alarms, OperatingPoint(rate, alarms, score, int((anomalous > score).sum())))
    return list(points.values())


class EvaluationReport:
    """Collects the images of the galleries while the images are scored, and writes the page."""

    def __init__(self, detector: Detector, dataset: LabelledDataset, *, gallery: int) -> None:
        """`gallery`: how many images each gallery shows."""
        self._detector = detector
        self._labels: Mapping[str, LabelledImage] = {str(image.path): image for image in dataset.images}
        self._missed, self._false_alarms, self._found = (Largest(gallery) for _ in range(3))

    def wants_thumbnail(self, image: ImageResult) -> bool:
        """Whether the image may be shown; for `score_images`."""
        gallery, key = self._gallery_of(image)
        return gallery is not None and gallery.would_keep(key)

    def add(self, image: ImageResult) -> None:
        """Consider an image for its gallery."""
        gallery, key = self._gallery_of(image)
        if gallery is not None:
            gallery.add(image, key)

    def _gallery_of(self, image: ImageResult) -> tuple[Largest | None, float]:
        if image.result is None:
            return None, 0.0
        limits, score = self._detector.limits, image.result.score
        if self._labels[image.path].is_anomalous:
            return (self._found, score) if score > limits.reject.score else (self._missed, -score)
        return (self._false_alarms if score > min(limits.warn.score, limits.reject.score) else None), score

    def write(
        self,
        path: Path,
        evaluation: Evaluation,
        scored: Sequence[Scored],
        kit: Kit,
        *,
        masked: Sequence[MaskedImage] = (),
    ) -> None:
        """Write the page, whole or not at all. OutputError from the disk.

        `masked`: the images whose maps were compared with masks. The worst and the best are scored again.
        """
        truth = [each.label.is_anomalous for each in scored]
        scores = np.array([each.result.score for each in scored])
        anomalous = np.array(truth)
        false, true, _ = sklearn_metrics().roc_curve(truth, scores, drop_intermediate=False)
        marks = {"warn": _point(evaluation.warn), "reject": _point(evaluation.reject)}
        write_page(
            path,
            "evaluation.html.j2",
            kit=kit,
            detector=self._detector,
            galleries=[*self._galleries(kit), *self._map_galleries(kit, evaluation, scored, masked)],
            evaluation=evaluation,
            limits={"warn": evaluation.warn, "reject": evaluation.reject},
            metrics=[(METRICS[name], interval) for name, interval in evaluation.metrics.items()],
            histogram=histogram(
                (
                    Scores("normal images", scores[~anomalous], NORMAL),
                    Scores("anomalous images", scores[anomalous], DEFECT, hatched=True),
                ),
                self._detector.limits,
            ),
            roc=roc(false, true, marks=marks),
            roc_start=roc(false, true, marks=marks, up_to=_RATES[-1]),
            operating_points=operating_points(scores[~anomalous], scores[anomalous]),
        )

    def _map_galleries(
        self, kit: Kit, evaluation: Evaluation, scored: Sequence[Scored], masked: Sequence[MaskedImage]
    ) -> list[Gallery]:
        by_aupimo = evaluation.maps is not None and evaluation.maps.aupimo_is_resolved
        results = {each.label.path: each.result for each in scored}
        return map_galleries(kit, self._detector, masked, results, count=self._missed.size, by_aupimo=by_aupimo)

    def _galleries(self, kit: Kit) -> list[Gallery]:
        return [
            Gallery(
                title,
                order if largest.count else none,
                largest.count,
                [
                    card(
                        kit,
                        image,
                        name=self._labels[image.path].name,
                        detector=self._detector,
                        truth=Truth(self._labels[image.path].label, self._labels[image.path].is_anomalous),
                    )
                    for image in largest.images
                ],
            )
            for title, order, none, largest in (
                (
                    "Missed anomalous images: not rejected",
                    "Anomalous images that are not rejected, smallest score first.",
                    "Every anomalous image was rejected.",
                    self._missed,
                ),
                (
                    "False alarms: warned or rejected",
                    "Normal images with verdict warn or reject, largest score first.",
                    "No normal image got verdict warn or reject.",
                    self._false_alarms,
                ),
                (
                    "Detected anomalous images: rejected",
                    "Anomalous images that are rejected, largest score first.",
                    "No anomalous image was rejected.",
                    self._found,
                ),
            )
        ]


def _point(limit: AtLimit) -> tuple[float, float]:
    """A limit as a point of the ROC curve."""
    return limit.false_alarms / limit.normal_images, 1 - limit.missed / limit.anomalous_images
