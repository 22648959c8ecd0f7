"""How good a kit is on pictures whose truth is known: over all thresholds, by kind of defect, at its own limits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from sklearn.metrics import average_precision_score, roc_auc_score

from msc_edge import __version__
from msc_edge.calibration import Limit, band_of_alarms
from msc_edge.errors import SourceError
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.evaluation.dataset import GOOD, Labelled
from msc_edge.runtime.evaluation.figures import RESAMPLES, Interval, with_intervals
from msc_edge.runtime.folder import Row, score_files


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AtLimit(_Part):
    """What one of the kit's own limits does to these pictures."""

    score: float = Field(description="the limit")
    promised_rate: float | None = Field(
        description="share of good pictures that it promises to flag; null: set by hand"
    )
    good: PositiveInt
    false_alarms: NonNegativeInt = Field(description="good pictures above the limit")
    band: tuple[int, int] | None = Field(
        description="where 90 % of such counts lie, by the promise, for as many pictures like the held-out ones"
    )
    defective: PositiveInt
    missed: NonNegativeInt = Field(description="defective pictures that are not above the limit")

    @property
    def keeps_promise(self) -> bool | None:
        """Whether the false alarms lie within the band; None where nothing was promised."""
        return None if self.band is None else self.band[0] <= self.false_alarms <= self.band[1]


class OfClass(_Part):
    """One kind of defect against all good pictures."""

    label: str
    pictures: PositiveInt
    auroc: float
    average_precision: float
    warned: NonNegativeInt = Field(description="above the warn limit, rejected ones included")
    rejected: NonNegativeInt


class Evaluation(_Part):
    """The whole of evaluation.json."""

    format_version: int = 1
    msc_edge_version: str
    kit: str = Field(description="SHA-256 of the kit's manifest")
    good: PositiveInt
    defective: PositiveInt
    unreadable: list[str] = Field(description="left out: pictures that could not be read, and why")
    resamples: PositiveInt = Field(description="bootstrap resamples behind the intervals, 95 %")
    figures: dict[str, Interval]
    warn: AtLimit
    reject: AtLimit
    classes: list[OfClass]


@dataclass(frozen=True)
class Scored:
    """One picture that was read: what it shows, and what the kit says of it."""

    picture: Labelled
    row: Row

    @property
    def score(self) -> float:
        """As in the row."""
        assert self.row.score is not None, "only pictures that were read are scored"
        return self.row.score


def score_labelled(
    detector: Detector, pictures: Sequence[Labelled], *, threads: int | None = None, report: Report = silent
) -> tuple[list[Scored], list[Row]]:
    """Score them all; and the rows of those that cannot be read. SourceError when too few are left."""
    scored, unread = [], []
    rows = score_files(detector, [picture.path for picture in pictures], threads=threads)
    for picture, row in zip(pictures, rows, strict=True):
        if row.error is None:
            scored.append(Scored(picture, row))
        else:
            unread.append(row)
        report("scoring", len(scored) + len(unread), len(pictures))
    for defect, what in ((False, "good"), (True, "defective")):
        if not any(each.picture.is_defect == defect for each in scored):
            raise SourceError(
                f"none of the {what} pictures could be read; the first: {unread[0].path}: {unread[0].error}"
            )
    return scored, unread


def evaluate(
    detector: Detector,
    scored: Sequence[Scored],
    unread: Sequence[Row],
    *,
    kit_sha256: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
    report: Report = silent,
) -> Evaluation:
    """All figures of pictures that are scored; see score_labelled."""
    truth = np.array([each.picture.is_defect for each in scored], dtype=int)
    scores = np.array([each.score for each in scored])
    good = scores[truth == 0]
    labels = sorted({each.picture.label for each in scored} - {GOOD})
    limits = detector.limits

    def of_class(label: str) -> OfClass:
        own = np.array([each.score for each in scored if each.picture.label == label])
        both, against = np.concatenate([good, own]), [0] * len(good) + [1] * len(own)
        return OfClass(
            label=label,
            pictures=len(own),
            auroc=float(roc_auc_score(against, both)),
            average_precision=float(average_precision_score(against, both)),
            warned=int((own > limits.warn.score).sum()),
            rejected=int((own > limits.reject.score).sum()),
        )

    def at(limit: Limit) -> AtLimit:
        held_out, band = detector.calibration.scores.size, None
        if limit.promised_rate is not None:
            band = band_of_alarms(round(limit.promised_rate * (held_out + 1)), held_out, len(good))
        return AtLimit(
            score=limit.score,
            promised_rate=limit.promised_rate,
            good=len(good),
            false_alarms=int((good > limit.score).sum()),
            band=band,
            defective=int(truth.sum()),
            missed=int((scores[truth == 1] <= limit.score).sum()),
        )

    return Evaluation(
        msc_edge_version=__version__,
        kit=kit_sha256,
        good=len(good),
        defective=int(truth.sum()),
        unreadable=[f"{row.path}: {row.error}" for row in unread],
        resamples=resamples,
        figures=with_intervals(truth, scores, resamples=resamples, seed=seed, report=report),
        warn=at(limits.warn),
        reject=at(limits.reject),
        classes=[of_class(label) for label in labels],
    )
