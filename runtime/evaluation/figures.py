"""The figures of an evaluation, by scikit-learn, with bootstrap intervals.

Truth: 1 is a defect, 0 a good part; scores: larger is stranger.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from msc_edge.progress import Report, silent

RESAMPLES = 1000
CONFIDENCE = 0.95
Figure = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Interval:
    """A figure, and where 95 % of its bootstrap resamples lie."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float


def tpr_at(rate: float) -> Figure:
    """The largest share of defects that a threshold catches which flags at most a share `rate` of the good parts."""

    def figure(truth: np.ndarray, scores: np.ndarray) -> float:
        false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
        return float(true[false <= rate + 1e-12].max())

    return figure


def best_f1(truth: np.ndarray, scores: np.ndarray) -> float:
    """The largest harmonic mean of precision and recall over all thresholds. It needs the truth: nobody can set it."""
    precision, recall, _ = precision_recall_curve(truth, scores)
    both = precision + recall
    return float(np.max(2 * precision * recall / np.where(both > 0, both, 1)))


FIGURES: Mapping[str, Figure] = {
    "auroc": lambda truth, scores: float(roc_auc_score(truth, scores)),
    "average_precision": lambda truth, scores: float(average_precision_score(truth, scores)),
    "tpr_at_1_fpr": tpr_at(0.01),
    "tpr_at_5_fpr": tpr_at(0.05),
    "best_f1": best_f1,
}


def with_intervals(
    truth: np.ndarray, scores: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, report: Report = silent
) -> dict[str, Interval]:
    """All figures with percentile bootstrap intervals (Efron & Tibshirani 1993, ch. 13).

    Good and defective pictures are drawn apart, so that each resample has as many of each. The intervals tell how
    much hangs on which pictures were there; not what another training would give.
    """
    good, bad = np.flatnonzero(truth == 0), np.flatnonzero(truth == 1)
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in FIGURES}
    for done in range(resamples):
        rows = np.concatenate([random.choice(good, len(good)), random.choice(bad, len(bad))])
        for name, figure in FIGURES.items():
            drawn[name].append(figure(truth[rows], scores[rows]))
        report("drawing resamples", done + 1, resamples)
    tails = (1 - CONFIDENCE) / 2
    return {
        name: Interval(figure(truth, scores), *(float(q) for q in np.quantile(drawn[name], (tails, 1 - tails))))
        for name, figure in FIGURES.items()
    }
