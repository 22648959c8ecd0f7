"""How good a kit is on images whose truth is known: over all thresholds, by kind of defect, at its limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from msc_edge import __version__
from msc_edge.calibration import Calibration, Limit, Limits, alarm_count_interval
from msc_edge.errors import SourceError
from msc_edge.kit.manifest import Precision
from msc_edge.parallel import ordered_map
from msc_edge.progress import Report, silent
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.batch import Row, score_file_with_result
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.evaluate.labelled import GOOD, Labelled
from msc_edge.runtime.tools.evaluate.metrics import RESAMPLES, Interval, auroc, average_precision, with_intervals

Promise = Literal["as promised", "fewer than promised", "more than promised"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AtLimit(_Part):
    """What one of the two limits does to these images."""

    score: float = Field(description="the limit: scores above it are flagged")
    target_rate: float | None = Field(description="the share that was asked for; null: the limit was set by hand")
    expected_rate: float | None = Field(description="share of good images that it promises to flag; null: nothing")
    good: PositiveInt = Field(description="good images that were scored")
    false_alarms: NonNegativeInt = Field(description="good images above the limit")
    band: tuple[int, int] | None = Field(
        description="where 90 % of such counts lie, by the promise, for as many images like the held-out ones"
    )
    defective: PositiveInt = Field(description="defective images that were scored")
    missed: NonNegativeInt = Field(description="defective images that are not above the limit")

    @property
    def kept(self) -> Promise | None:
        """How the false alarms compare with the band; None where nothing was promised."""
        if self.band is None:
            return None
        if self.false_alarms > self.band[1]:
            return "more than promised"
        return "fewer than promised" if self.false_alarms < self.band[0] else "as promised"


class DefectType(_Part):
    """One kind of defect against all good images."""

    label: str = Field(description="the name of its folder")
    images: NonNegativeInt = Field(description="images that were scored")
    unreadable: NonNegativeInt = Field(description="images that could not be read")
    auroc: float | None = Field(description="null: none of its images could be read")
    average_precision: float | None = Field(description="null: none of its images could be read")
    warned: NonNegativeInt = Field(description="above the warn limit, rejected ones included")
    rejected: NonNegativeInt = Field(description="above the reject limit")


class Unreadable(_Part):
    """One image that was left out."""

    path: str = Field(description="within the data set")
    error: str = Field(description="why it could not be read")


class Evaluation(_Part):
    """The whole of evaluation.json."""

    format_version: Literal[1] = 1
    msc_edge_version: str
    kit: str = Field(description="SHA-256 of the kit's manifest")
    precision: Precision = Field(description="of the model that gave the scores")
    models: PositiveInt = Field(
        default=1, description="of the kit; where there are two, their scores and limits differ"
    )
    good: PositiveInt = Field(description="good images that were scored")
    defective: PositiveInt = Field(description="defective images that were scored")
    unreadable: list[Unreadable] = Field(description="images that could not be read; no figure counts them")
    other_files: NonNegativeInt = Field(description="other files in the data set's folders")
    ignored_folders: list[str] = Field(
        default=[], description="folders beside the kinds that are none by name, such as masks"
    )
    in_bank: NonNegativeInt = Field(
        description="scored images that the kit has learnt from: their scores are near 0 whatever they show"
    )
    resamples: PositiveInt = Field(description="bootstrap resamples behind the intervals, which hold 95 % of them")
    figures: dict[str, Interval] = Field(description="over all thresholds; each in [0, 1], 1 is perfect")
    warn: AtLimit
    reject: AtLimit
    kinds: list[DefectType]


@dataclass(frozen=True)
class Scored:
    """One image: what it shows, and what the kit says of it."""

    image: Labelled
    row: Row
    in_bank: bool = False
    """Whether the kit has learnt from this very image."""

    @property
    def score(self) -> float:
        """As in the row, of an image that was read."""
        assert self.row.score is not None, "asked of an image that could not be read"
        return self.row.score


def score_labelled(
    detector: Detector, images: Sequence[Labelled], *, threads: int | None = None, report: Report = silent
) -> tuple[list[Scored], list[Scored]]:
    """Score them all: those that could be read, and the others. SourceError when no good or no defective one is left.

    Load the detector with `threads=1`; see score_files.
    """
    read: list[Scored] = []
    unread: list[Scored] = []

    def score(image: Labelled) -> Scored:
        row, result = score_file_with_result(detector, image.path)
        return Scored(image, row, in_bank=result is not None and result.is_in_bank)

    for done, each in enumerate(ordered_map(score, images, workers=threads or usable_cores()), start=1):
        (read if each.row.error is None else unread).append(each)
        report("scoring", done, len(images))
    for defect, what in ((False, "good"), (True, "defective")):
        if not any(each.image.is_defect == defect for each in read):
            first = next(each for each in unread if each.image.is_defect == defect)
            raise SourceError(
                f"none of the {what} images could be read; the first: {first.image.path}: {first.row.error}"
            )
    return read, unread


def evaluate(
    detector: Detector,
    read: Sequence[Scored],
    unread: Sequence[Scored] = (),
    *,
    kit_sha256: str,
    other_files: int = 0,
    ignored_folders: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    report: Report = silent,
) -> Evaluation:
    """All figures of images that are scored; see score_labelled, whose answer this takes."""
    truth = np.array([each.image.is_defect for each in read], dtype=int)
    scores = np.array([each.score for each in read])
    good, bad = scores[truth == 0], scores[truth == 1]
    labels = sorted({each.image.label for each in (*read, *unread)} - {GOOD})
    return Evaluation(
        msc_edge_version=__version__,
        kit=kit_sha256,
        precision=detector.precision,
        models=len(detector.manifest.precisions),
        good=len(good),
        defective=len(bad),
        unreadable=[Unreadable(path=each.image.name, error=each.row.error or "") for each in unread],
        other_files=other_files,
        ignored_folders=list(ignored_folders),
        in_bank=sum(each.in_bank for each in read),
        resamples=resamples,
        figures=with_intervals(truth, scores, resamples=resamples, seed=seed, report=report),
        warn=_at(detector.limits.warn, detector.calibration, good, bad),
        reject=_at(detector.limits.reject, detector.calibration, good, bad),
        kinds=[
            _of_kind(
                label,
                np.array([each.score for each in read if each.image.label == label]),
                good,
                detector.limits,
                unreadable=sum(each.image.label == label for each in unread),
            )
            for label in labels
        ],
    )


def _at(limit: Limit, calibration: Calibration, good: np.ndarray, bad: np.ndarray) -> AtLimit:
    band = None
    if limit.expected_rate is not None:
        band = alarm_count_interval(calibration.flagged(limit.expected_rate), calibration.scores.size, len(good))
    return AtLimit(
        score=limit.score,
        target_rate=limit.target_rate,
        expected_rate=limit.expected_rate,
        good=len(good),
        false_alarms=int((good > limit.score).sum()),
        band=band,
        defective=len(bad),
        missed=int((bad <= limit.score).sum()),
    )


def _of_kind(label: str, own: np.ndarray, good: np.ndarray, limits: Limits, *, unreadable: int) -> DefectType:
    truth, scores = np.repeat([0, 1], [len(good), len(own)]), np.concatenate([good, own])
    return DefectType(
        label=label,
        images=len(own),
        unreadable=unreadable,
        auroc=auroc(truth, scores) if len(own) else None,
        average_precision=average_precision(truth, scores) if len(own) else None,
        warned=int((own > min(limits.warn.score, limits.reject.score)).sum()),
        rejected=int((own > limits.reject.score).sum()),
    )
