"""The metrics of an evaluation, from scikit-learn, with bootstrap intervals.

`truth`: 1 is an anomalous image, 0 a normal one. `scores`: larger is more anomalous.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict

from msc_edge.errors import explain_missing_extra
from msc_edge.map_metrics.curves import CONFIDENCE
from msc_edge.progress import Report, silent
from msc_edge.runtime.tools.report.plots import found_at

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A metric with its 95 % bootstrap interval."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metric:
    """One metric over all thresholds, in [0, 1]; 1 is perfect."""

    title: str
    meaning: str
    compute: Callable[[np.ndarray, np.ndarray], float]
    """From truth and scores, both of shape (n,), with normal and anomalous images among them."""


def sklearn_metrics() -> ModuleType:
    """scikit-learn's metrics, imported on first use: the base install has none. MissingExtraError names the extra."""
    with explain_missing_extra():
        from sklearn import metrics  # noqa: PLC0415
    return metrics


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of an anomalous and a normal image in which the anomalous one scores higher; a tie is half."""
    return float(sklearn_metrics().roc_auc_score(truth, scores))


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """The precision at each threshold, weighted by the increase in recall."""
    return float(sklearn_metrics().average_precision_score(truth, scores))


def tpr_at(rate: float, truth: np.ndarray, scores: np.ndarray) -> float:
    """The largest share of anomalous images found by a threshold that flags at most a share `rate` of normal images."""
    false, true, _ = sklearn_metrics().roc_curve(truth, scores, drop_intermediate=False)
    return found_at(false, true, rate)


def best_f1(truth: np.ndarray, scores: np.ndarray) -> float:
    """The largest harmonic mean of precision and recall over all thresholds. The threshold needs the labels."""
    precision, recall, _ = sklearn_metrics().precision_recall_curve(truth, scores)
    both = precision + recall
    return float(np.max(2 * precision * recall / np.where(both > 0, both, 1)))


METRICS: Mapping[str, Metric] = {
    "auroc": Metric("AUROC", "how often an anomalous image scores higher than a normal one", auroc),
    "average_precision": Metric(
        "average precision", "precision over all thresholds, weighted by the increase in recall", average_precision
    ),
    "tpr_at_1_fpr": Metric(
        "TPR at 1 % FPR",
        "anomalous images found when at most 1 % of normal images are flagged",
        lambda truth, scores: tpr_at(0.01, truth, scores),
    ),
    "tpr_at_5_fpr": Metric(
        "TPR at 5 % FPR",
        "anomalous images found when at most 5 % of normal images are flagged",
        lambda truth, scores: tpr_at(0.05, truth, scores),
    ),
    "best_f1": Metric("best F1", "at the threshold that is best for these images", best_f1),
}


def with_intervals(
    truth: np.ndarray,
    scores: np.ndarray,
    *,
    metrics: Mapping[str, Metric] = METRICS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    report: Report = silent,
) -> dict[str, Interval]:
    """Metrics with percentile bootstrap intervals (Efron & Tibshirani 1993, ch. 13).

    Normal and anomalous images are resampled separately, so each resample has as many of both. The intervals show the
    effect of the choice of test images, not of another training. An interval always includes its value; percentiles
    alone need not, because resamples contain ties.
    """
    normal, anomalous = np.flatnonzero(truth == 0), np.flatnonzero(truth == 1)
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for done in range(resamples):
        rows = np.concatenate([random.choice(normal, len(normal)), random.choice(anomalous, len(anomalous))])
        for name, metric in metrics.items():
            drawn[name].append(metric.compute(truth[rows], scores[rows]))
        report("resampling", done + 1, resamples)
    tails = (1 - CONFIDENCE) / 2
    intervals = {}
    for name, metric in metrics.items():
        value = metric.compute(truth, scores)
        low, high = np.quantile(drawn[name], (tails, 1 - tails))
        intervals[name] = Interval(value, min(float(low), value), max(float(high), value))
    return intervals
