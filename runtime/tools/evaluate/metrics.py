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


@dataclass(frozen=True)
class Interval:
    """A figure, and where 95 % of its bootstrap resamples lie."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metric:
    """One figure over all thresholds, in [0, 1]: 1 is perfect."""

    words: str
    meaning: str
    of: Callable[[np.ndarray, np.ndarray], float]
    """From truth and scores, both of shape (n,), with good and defective ones among them."""


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of a defective and a good image in which the defective one is stranger; a tie is half."""
    return float(roc_auc_score(truth, scores))


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """The precision at each threshold, weighed by the recall that it adds."""
    return float(average_precision_score(truth, scores))


def tpr_at(rate: float, truth: np.ndarray, scores: np.ndarray) -> float:
    """The largest share of defects that a threshold catches which flags at most a share `rate` of the good parts."""
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return float(true[false <= rate + 1e-12].max())


def best_f1(truth: np.ndarray, scores: np.ndarray) -> float:
    """The largest harmonic mean of precision and recall over all thresholds. It needs the truth: nobody can set it."""
    precision, recall, _ = precision_recall_curve(truth, scores)
    both = precision + recall
    return float(np.max(2 * precision * recall / np.where(both > 0, both, 1)))


METRICS: Mapping[str, Metric] = {
    "auroc": Metric("AUROC", "how often a defective part looks stranger than a good one", auroc),
    "average_precision": Metric(
        "average precision", "the share of defective ones among the most_anomalous, over all cuts", average_precision
    ),
    "tpr_at_1_fpr": Metric(
        "TPR at 1 % FPR",
        "defects caught when at most 1 % of good parts are flagged",
        lambda truth, scores: tpr_at(0.01, truth, scores),
    ),
    "tpr_at_5_fpr": Metric(
        "TPR at 5 % FPR",
        "defects caught when at most 5 % of good parts are flagged",
        lambda truth, scores: tpr_at(0.05, truth, scores),
    ),
    "best_f1": Metric("best F1", "at the threshold that suits these very images best", best_f1),
}


def with_intervals(
    truth: np.ndarray,
    scores: np.ndarray,
    *,
    figures: Mapping[str, Metric] = METRICS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    report: Report = silent,
) -> dict[str, Interval]:
    """Figures with percentile bootstrap intervals (Efron & Tibshirani 1993, ch. 13).

    Good and defective images are drawn apart, so that each resample has as many of each. The intervals tell how
    much hangs on which images were there; not what another training would give. An interval always holds its figure,
    which the percentiles alone need not: a resample has ties that the images have not.
    """
    good, bad = np.flatnonzero(truth == 0), np.flatnonzero(truth == 1)
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in figures}
    for done in range(resamples):
        rows = np.concatenate([random.choice(good, len(good)), random.choice(bad, len(bad))])
        for name, figure in figures.items():
            drawn[name].append(figure.of(truth[rows], scores[rows]))
        report("drawing resamples", done + 1, resamples)
    tails = (1 - CONFIDENCE) / 2
    intervals = {}
    for name, figure in figures.items():
        value = figure.of(truth, scores)
        low, high = np.quantile(drawn[name], (tails, 1 - tails))
        intervals[name] = Interval(value, min(float(low), value), max(float(high), value))
    return intervals
