"""Two kits on the same labelled images: how well each finds the anomalous ones, and where their verdicts differ."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from msc_edge.calibration import Verdict
from msc_edge.errors import SourceError
from msc_edge.kit.manifest import Precision
from msc_edge.map_metrics.curves import CONFIDENCE
from msc_edge.progress import Report, silent
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.evaluate.evaluation import AtLimit, at_limit
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset
from msc_edge.runtime.tools.evaluate.metrics import RESAMPLES, Interval, auroc, average_precision, sklearn_metrics

_TIMED = 30  # images whose time is measured


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ComparedKit(_Part):
    """One of the two kits."""

    name: str
    sha256: str = Field(description="SHA-256 of the kit's manifest")
    backbone: str
    model: Precision
    auroc: float
    average_precision: float
    warn: AtLimit
    reject: AtLimit
    least_p_value: float = Field(
        default=0.0,
        description="that of an image above all calibration images, an upper bound; 0: not known (an older msc-edge)",
    )
    milliseconds: float = Field(description="median time to read, decode and score an image on one thread")


class ComparedImage(_Part):
    """One image, and what the two kits say about it."""

    name: str
    path: str
    label: str
    scores: tuple[float, float]
    p_values: tuple[float, float]
    verdicts: tuple[Verdict, Verdict]
    regions: tuple[int | None, int | None] = Field(
        default=(None, None), description="regions of the heatmaps; null for a kit that compares whole images only"
    )


class Comparison(_Part):
    """The whole of a comparison."""

    kits: tuple[ComparedKit, ComparedKit]
    auroc_difference: Interval = Field(description="second kit minus first; 95 % interval over resampled images")
    normal_images: PositiveInt
    anomalous_images: PositiveInt
    unreadable: NonNegativeInt
    images: list[ComparedImage]

    @property
    def differing(self) -> list[int]:
        """The positions of the images with different verdicts, those with the largest difference of p-values first."""

        def difference(position: int) -> float:
            first, second = self.images[position].p_values
            return abs(first - second)

        positions = (number for number, image in enumerate(self.images) if len(set(image.verdicts)) > 1)
        return sorted(positions, key=difference, reverse=True)


def compute_comparison(
    kits: Sequence[Path], dataset: LabelledDataset, *, resamples: int = RESAMPLES, report: Report = silent
) -> Comparison:
    """Score the images of a data set with two kits, each with its own limits.

    Images that one of the kits cannot read are left out. Raises KitError, and SourceError without readable normal or
    anomalous images, MissingExtraError without scikit-learn.
    """
    sklearn_metrics()  # missing: known before all images are scored
    detectors = [Detector.load(kit, threads=1) for kit in kits]
    paths = [image.path for image in dataset.images]
    scored: list[list[ImageResult]] = []
    for detector in detectors:
        found: list[ImageResult] = []
        with closing(score_images(detector, paths)) as results:
            for result in results:
                found.append(result)
                report(f"scoring with {detector.manifest.name}", len(found), len(paths))
        scored.append(found)
    images = [
        ComparedImage(
            name=label.name,
            path=str(label.path),
            label=label.label,
            scores=(one.result.score, other.result.score),
            p_values=(one.result.p_value, other.result.p_value),
            verdicts=(one.result.verdict, other.result.verdict),
            regions=(_regions(one.result), _regions(other.result)),
        )
        for label, one, other in zip(dataset.images, *scored, strict=True)
        if one.result and other.result
    ]
    truth = np.array([image.label != "good" for image in images], dtype=int)
    for wanted, what in ((0, "normal"), (1, "anomalous")):
        if not (truth == wanted).any():
            raise SourceError(f"none of the {what} images could be read by both kits; check the images")
    scores = np.array([image.scores for image in images])
    times = _milliseconds(detectors, [Path(image.path) for image in images], report)
    first, second = (
        _kit(detector, truth, own, milliseconds)
        for detector, own, milliseconds in zip(detectors, scores.T, times, strict=True)
    )
    return Comparison(
        kits=(first, second),
        auroc_difference=auroc_difference(truth, scores, resamples=resamples, report=report),
        normal_images=int((truth == 0).sum()),
        anomalous_images=int(truth.sum()),
        unreadable=len(dataset.images) - len(images),
        images=images,
    )


def _regions(result: Result) -> int | None:
    return None if result.patch_score is None else len(result.regions)


def auroc_difference(
    truth: np.ndarray, scores: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, report: Report = silent
) -> Interval:
    """AUROC of the second column of `scores`, float64 (n, 2), minus that of the first, with its 95 % interval.

    `truth`: int (n,), 1 is anomalous. The images are resampled, the same for both kits (a paired bootstrap; Efron &
    Tibshirani 1993, ch. 13), normal and anomalous ones separately.
    """
    places = [np.unique(column, return_inverse=True)[1] for column in scores.T]
    random = np.random.default_rng(seed)

    def difference(counts: np.ndarray) -> float:
        first, second = (_auroc(place, truth, counts) for place in places)
        return second - first

    drawn = []
    for done in range(resamples):
        counts = np.empty(len(truth))
        for part in (0, 1):
            size = int((truth == part).sum())
            counts[truth == part] = np.bincount(random.integers(size, size=size), minlength=size)
        drawn.append(difference(counts))
        report("resampling", done + 1, resamples)
    tails = (1 - CONFIDENCE) / 2
    value = difference(np.ones(len(truth)))
    low, high = (float(each) for each in np.quantile(drawn, (tails, 1 - tails)))
    return Interval(value, min(low, value), max(high, value))


def _auroc(place: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> float:
    """AUROC of images that count more than once, or not at all.

    `place`: the place of each score in the sorted distinct scores, int (n,). `counts`: how often each image is drawn.
    """
    normal, anomalous = (np.bincount(place, counts * (truth == part)) for part in (0, 1))
    below = np.cumsum(normal) - normal / 2  # a tie is half
    return float(anomalous @ below / (normal.sum() * anomalous.sum()))


def _kit(detector: Detector, truth: np.ndarray, scores: np.ndarray, milliseconds: float) -> ComparedKit:
    normal, anomalous = scores[truth == 0], scores[truth == 1]
    return ComparedKit(
        name=detector.manifest.name,
        sha256=detector.kit.sha256,
        backbone=detector.manifest.network.backbone,
        model=detector.model,
        auroc=auroc(truth, scores),
        average_precision=average_precision(truth, scores),
        warn=at_limit(detector.limits.warn, detector.calibration, normal, anomalous),
        reject=at_limit(detector.limits.reject, detector.calibration, normal, anomalous),
        least_p_value=detector.calibration.least_p_value,
        milliseconds=milliseconds,
    )


def _milliseconds(detectors: Sequence[Detector], paths: Sequence[Path], report: Report) -> list[float]:
    """The median time of each detector, measured in turns, so that both see the same load of the machine."""
    timed = paths[: _TIMED + 1]
    times: list[list[float]] = [[] for _ in detectors]
    for done, path in enumerate(timed, start=1):
        for detector, own in zip(detectors, times, strict=True):
            started = time.perf_counter()
            detector.score_file(path)
            own.append(1000 * (time.perf_counter() - started))
        report("measuring the time of an image", done, len(timed))
    return [median(own[1:] or own) for own in times]  # the first image warms up
