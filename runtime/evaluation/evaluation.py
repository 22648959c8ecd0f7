"""How good a kit is on pictures whose truth is known: over all thresholds, by kind of defect, at its limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from msc_edge import __version__
from msc_edge.calibration import Calibration, Limit, Limits, band_of_alarms
from msc_edge.errors import SourceError
from msc_edge.manifest import Precision
from msc_edge.parallel import ordered_map
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.evaluation.dataset import GOOD, Labelled
from msc_edge.runtime.evaluation.figures import RESAMPLES, Interval, auroc, average_precision, with_intervals
from msc_edge.runtime.folder import Row, judge_file
from msc_edge.runtime.model import usable_cores

Promise = Literal["as promised", "fewer than promised", "more than promised"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AtLimit(_Part):
    """What one of the two limits does to these pictures."""

    score: float = Field(description="the limit: scores above it are flagged")
    requested_rate: float | None = Field(description="the share that was asked for; null: the limit was set by hand")
    promised_rate: float | None = Field(description="share of good pictures that it promises to flag; null: nothing")
    good: PositiveInt = Field(description="good pictures that were scored")
    false_alarms: NonNegativeInt = Field(description="good pictures above the limit")
    band: tuple[int, int] | None = Field(
        description="where 90 % of such counts lie, by the promise, for as many pictures like the held-out ones"
    )
    defective: PositiveInt = Field(description="defective pictures that were scored")
    missed: NonNegativeInt = Field(description="defective pictures that are not above the limit")

    @property
    def kept(self) -> Promise | None:
        """How the false alarms compare with the band; None where nothing was promised."""
        if self.band is None:
            return None
        if self.false_alarms > self.band[1]:
            return "more than promised"
        return "fewer than promised" if self.false_alarms < self.band[0] else "as promised"


class OfKind(_Part):
    """One kind of defect against all good pictures."""

    label: str = Field(description="the name of its folder")
    pictures: NonNegativeInt = Field(description="pictures that were scored")
    unreadable: NonNegativeInt = Field(description="pictures that could not be read")
    auroc: float | None = Field(description="null: none of its pictures could be read")
    average_precision: float | None = Field(description="null: none of its pictures could be read")
    warned: NonNegativeInt = Field(description="above the warn limit, rejected ones included")
    rejected: NonNegativeInt = Field(description="above the reject limit")


class Unreadable(_Part):
    """One picture that was left out."""

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
    good: PositiveInt = Field(description="good pictures that were scored")
    defective: PositiveInt = Field(description="defective pictures that were scored")
    unreadable: list[Unreadable] = Field(description="pictures that could not be read; no figure counts them")
    passed_over: NonNegativeInt = Field(description="other files in the data set's folders")
    not_kinds: list[str] = Field(
        default=[], description="folders beside the kinds that are none by name, such as masks"
    )
    in_bank: NonNegativeInt = Field(
        description="scored pictures that the kit has learnt from: their scores are near 0 whatever they show"
    )
    resamples: PositiveInt = Field(description="bootstrap resamples behind the intervals, which hold 95 % of them")
    figures: dict[str, Interval] = Field(description="over all thresholds; each in [0, 1], 1 is perfect")
    warn: AtLimit
    reject: AtLimit
    kinds: list[OfKind]


@dataclass(frozen=True)
class Scored:
    """One picture: what it shows, and what the kit says of it."""

    picture: Labelled
    row: Row
    in_bank: bool = False
    """Whether the kit has learnt from this very picture."""

    @property
    def score(self) -> float:
        """As in the row, of a picture that was read."""
        assert self.row.score is not None, "asked of a picture that could not be read"
        return self.row.score


def score_labelled(
    detector: Detector, pictures: Sequence[Labelled], *, threads: int | None = None, report: Report = silent
) -> tuple[list[Scored], list[Scored]]:
    """Score them all: those that could be read, and the others. SourceError when no good or no defective one is left.

    Load the detector with `threads=1`; see score_files.
    """
    read: list[Scored] = []
    unread: list[Scored] = []

    def score(picture: Labelled) -> Scored:
        row, result = judge_file(detector, picture.path)
        return Scored(picture, row, in_bank=result is not None and result.is_in_bank)

    for done, each in enumerate(ordered_map(score, pictures, workers=threads or usable_cores()), start=1):
        (read if each.row.error is None else unread).append(each)
        report("scoring", done, len(pictures))
    for defect, what in ((False, "good"), (True, "defective")):
        if not any(each.picture.is_defect == defect for each in read):
            first = next(each for each in unread if each.picture.is_defect == defect)
            raise SourceError(
                f"none of the {what} pictures could be read; the first: {first.picture.path}: {first.row.error}"
            )
    return read, unread


def evaluate(
    detector: Detector,
    read: Sequence[Scored],
    unread: Sequence[Scored] = (),
    *,
    kit_sha256: str,
    passed_over: int = 0,
    not_kinds: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    report: Report = silent,
) -> Evaluation:
    """All figures of pictures that are scored; see score_labelled, whose answer this takes."""
    truth = np.array([each.picture.is_defect for each in read], dtype=int)
    scores = np.array([each.score for each in read])
    good, bad = scores[truth == 0], scores[truth == 1]
    labels = sorted({each.picture.label for each in (*read, *unread)} - {GOOD})
    return Evaluation(
        msc_edge_version=__version__,
        kit=kit_sha256,
        precision=detector.precision,
        models=len(detector.manifest.precisions),
        good=len(good),
        defective=len(bad),
        unreadable=[Unreadable(path=each.picture.name, error=each.row.error or "") for each in unread],
        passed_over=passed_over,
        not_kinds=list(not_kinds),
        in_bank=sum(each.in_bank for each in read),
        resamples=resamples,
        figures=with_intervals(truth, scores, resamples=resamples, seed=seed, report=report),
        warn=_at(detector.limits.warn, detector.calibration, good, bad),
        reject=_at(detector.limits.reject, detector.calibration, good, bad),
        kinds=[
            _of_kind(
                label,
                np.array([each.score for each in read if each.picture.label == label]),
                good,
                detector.limits,
                unreadable=sum(each.picture.label == label for each in unread),
            )
            for label in labels
        ],
    )


def _at(limit: Limit, calibration: Calibration, good: np.ndarray, bad: np.ndarray) -> AtLimit:
    band = None
    if limit.promised_rate is not None:
        band = band_of_alarms(calibration.flagged(limit.promised_rate), calibration.scores.size, len(good))
    return AtLimit(
        score=limit.score,
        requested_rate=limit.requested_rate,
        promised_rate=limit.promised_rate,
        good=len(good),
        false_alarms=int((good > limit.score).sum()),
        band=band,
        defective=len(bad),
        missed=int((bad <= limit.score).sum()),
    )


def _of_kind(label: str, own: np.ndarray, good: np.ndarray, limits: Limits, *, unreadable: int) -> OfKind:
    truth, scores = np.repeat([0, 1], [len(good), len(own)]), np.concatenate([good, own])
    return OfKind(
        label=label,
        pictures=len(own),
        unreadable=unreadable,
        auroc=auroc(truth, scores) if len(own) else None,
        average_precision=average_precision(truth, scores) if len(own) else None,
        warned=int((own > min(limits.warn.score, limits.reject.score)).sum()),
        rejected=int((own > limits.reject.score).sum()),
    )
