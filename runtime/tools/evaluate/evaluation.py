"""How well a kit finds anomalous images: metrics over all thresholds, by defect type, and at its limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from msc_edge import __version__
from msc_edge.calibration import Calibration, Limit, Limits
from msc_edge.errors import SourceError
from msc_edge.kit.manifest import Precision
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.fields import description_of
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.evaluate.labelled import GOOD, LabelledDataset, LabelledImage
from msc_edge.runtime.tools.evaluate.masks import MapEvaluationResult, RegionsOfNormalImages, regions_of_normal_images
from msc_edge.runtime.tools.evaluate.metrics import RESAMPLES, Interval, auroc, average_precision, with_intervals

Comparison = Literal["inside the interval", "below the interval", "above the interval"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AtLimit(_Part):
    """The verdicts at one of the two limits."""

    score: float = Field(description="the limit: scores above it are flagged")
    target_rate: float | None = Field(description="target false-alarm rate; null: the limit was set by hand")
    expected_rate: float | None = Field(description="expected false-alarm rate; null: the limit was set by hand")
    normal_images: PositiveInt = Field(description="normal images that were scored")
    false_alarms: NonNegativeInt = Field(description="normal images above the limit")
    interval: tuple[int, int] | None = Field(
        description="90 % interval of the number of false alarms, if the images are like the calibration images"
    )
    anomalous_images: PositiveInt = Field(description="anomalous images that were scored")
    missed: NonNegativeInt = Field(description="anomalous images that are not above the limit")

    @property
    def comparison(self) -> Comparison | None:
        """The number of false alarms compared with its interval; None for a limit that was set by hand."""
        if self.interval is None:
            return None
        if self.false_alarms > self.interval[1]:
            return "above the interval"
        return "below the interval" if self.false_alarms < self.interval[0] else "inside the interval"


class DefectType(_Part):
    """The anomalous images of one defect type against all normal images."""

    name: str = Field(description="the name of the folder")
    images: NonNegativeInt = Field(description="images that were scored")
    unreadable: NonNegativeInt = Field(description="images that could not be read")
    auroc: float | None = Field(description="null: no image could be read")
    average_precision: float | None = Field(description="null: no image could be read")
    warned: NonNegativeInt = Field(description="images above the warn limit, rejected ones included")
    rejected: NonNegativeInt = Field(description="images above the reject limit")


class Unreadable(_Part):
    """An image that could not be read."""

    path: str = Field(description="path within the data set")
    error: str


class Evaluation(_Part):
    """The whole of evaluation.json."""

    format_version: Literal[2] = 2
    msc_edge_version: str
    kit: str = Field(description="SHA-256 of the kit's manifest")
    model: Precision = Field(description="model of the kit that scored the images")
    learned: NonNegativeInt = Field(default=0, description=description_of("learned"))
    learned_sha256: str | None = Field(default=None, description=description_of("learned_sha256"))
    models: PositiveInt = Field(default=1, description="number of models in the kit; each has its own limits")
    normal_images: PositiveInt = Field(description="normal images that were scored")
    anomalous_images: PositiveInt = Field(description="anomalous images that were scored")
    unreadable: list[Unreadable] = Field(description="images that could not be read; no metric includes them")
    other_files: NonNegativeInt = Field(description="other files in the folders of the data set")
    ignored_folders: list[str] = Field(
        default=[], description="folders beside the defect types that hold no images of parts, such as masks"
    )
    in_bank: NonNegativeInt = Field(
        description="scored images that are in the kit's memory bank, or were learned: their scores are near 0, with "
        "or without a defect"
    )
    resamples: PositiveInt = Field(description="bootstrap resamples behind the 95 % intervals")
    metrics: dict[str, Interval] = Field(description="over all thresholds; each in [0, 1], 1 is perfect")
    warn: AtLimit
    reject: AtLimit
    defect_types: list[DefectType]
    regions: RegionsOfNormalImages | None = Field(
        default=None, description="normal images with a region; null: the kit compares whole images only"
    )
    maps: MapEvaluationResult | None = Field(
        default=None, description="anomaly maps against ground-truth masks; null: no masks, or no maps"
    )


@dataclass(frozen=True)
class Scored:
    """A labelled image that was scored."""

    label: LabelledImage
    result: Result


def match_labels(
    dataset: LabelledDataset, images: Sequence[ImageResult]
) -> tuple[list[Scored], list[tuple[LabelledImage, str]]]:
    """The results of a data set, in its order, with their labels: scored images, and (label, error) of unreadable ones.

    SourceError where no normal or no anomalous image could be read.
    """
    pairs = list(zip(dataset.images, images, strict=True))
    scored = [Scored(label, image.result) for label, image in pairs if image.result is not None]
    unreadable = [(label, image.error or "") for label, image in pairs if image.result is None]
    for anomalous, what in ((False, "normal"), (True, "anomalous")):
        if not any(each.label.is_anomalous == anomalous for each in scored):
            label, error = next(each for each in unreadable if each[0].is_anomalous == anomalous)
            raise SourceError(f"none of the {what} images could be read; the first: {label.path}: {error}")
    return scored, unreadable


def compute_evaluation(
    detector: Detector,
    dataset: LabelledDataset,
    scored: Sequence[Scored],
    unreadable: Sequence[tuple[LabelledImage, str]] = (),
    *,
    maps: MapEvaluationResult | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    report: Report = silent,
) -> Evaluation:
    """All metrics of scored images; see `match_labels`. `maps`: those of their anomaly maps."""
    truth = np.array([each.label.is_anomalous for each in scored], dtype=int)
    scores = np.array([each.result.score for each in scored])
    normal, anomalous = scores[truth == 0], scores[truth == 1]
    names = sorted({image.label for image in dataset.images} - {GOOD})
    regions = detector.regions
    return Evaluation(
        msc_edge_version=__version__,
        kit=detector.kit.sha256,
        model=detector.model,
        learned=len(detector.additions),
        learned_sha256=detector.additions.sha256,
        models=len(detector.manifest.models),
        normal_images=len(normal),
        anomalous_images=len(anomalous),
        unreadable=[Unreadable(path=label.name, error=error) for label, error in unreadable],
        other_files=dataset.other_files,
        ignored_folders=list(dataset.ignored_folders),
        in_bank=sum(each.result.is_in_bank for each in scored),
        resamples=resamples,
        metrics=with_intervals(truth, scores, resamples=resamples, seed=seed, report=report),
        warn=at_limit(detector.limits.warn, detector.calibration, normal, anomalous),
        reject=at_limit(detector.limits.reject, detector.calibration, normal, anomalous),
        defect_types=[
            _defect_type(
                name,
                np.array([each.result.score for each in scored if each.label.label == name]),
                normal,
                detector.limits,
                unreadable=sum(label.label == name for label, _ in unreadable),
            )
            for name in names
        ],
        regions=regions
        and regions_of_normal_images(regions, [each.result for each in scored if not each.label.is_anomalous]),
        maps=maps,
    )


def at_limit(limit: Limit, calibration: Calibration, normal: np.ndarray, anomalous: np.ndarray) -> AtLimit:
    """The verdicts on the scores of normal images, float64 (n,), and of anomalous images, (m,), at one limit."""
    return AtLimit(
        score=limit.score,
        target_rate=limit.target_rate,
        expected_rate=limit.expected_rate,
        normal_images=len(normal),
        false_alarms=int((normal > limit.score).sum()),
        interval=calibration.alarm_interval(limit, len(normal)),
        anomalous_images=len(anomalous),
        missed=int((anomalous <= limit.score).sum()),
    )


def _defect_type(name: str, own: np.ndarray, normal: np.ndarray, limits: Limits, *, unreadable: int) -> DefectType:
    truth, scores = np.repeat([0, 1], [len(normal), len(own)]), np.concatenate([normal, own])
    return DefectType(
        name=name,
        images=len(own),
        unreadable=unreadable,
        auroc=auroc(truth, scores) if len(own) else None,
        average_precision=average_precision(truth, scores) if len(own) else None,
        warned=int((own > min(limits.warn.score, limits.reject.score)).sum()),
        rejected=int((own > limits.reject.score).sum()),
    )
