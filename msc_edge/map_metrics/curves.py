"""The area under curves of recall over the false-positive rate, and its bootstrap over images.

The thresholds are the lower edges of the bins, and the counts there are exact. Between two thresholds the curves are
linear, so values in one bin are ties, which count one half in the AUROC. The curves are computed and integrated in
chunks of thresholds, from the highest to the lowest, for all resamples together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msc_edge.map_metrics.histograms import ImageHistograms, dense, lower_edges, occupied_bins

CONFIDENCE = 0.95  # of bootstrap intervals
AUPIMO_BOUNDS = (1e-5, 1e-4)
_CHUNK = 512  # thresholds: 4 kB per image or resample


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric in [0, 1], 1 is perfect, with its 95 % bootstrap interval: `low` <= `value` <= `high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BestF1:
    """The largest F1 of pixels over all thresholds. The threshold needs the masks of these images."""

    value: float
    """In (0, 1], exact for this threshold."""
    threshold: float
    """>= 0. Pixels at or above it are predicted anomalous. The highest one of equally good thresholds."""


@dataclass(frozen=True, slots=True)
class AreaMetrics:
    """The metrics of some anomalous images and all normal images; None where one does not exist."""

    pixel_auroc: Estimate | None
    au_pro_30: Estimate | None
    au_pro_5: Estimate | None
    best_f1: BestF1 | None
    aupimo: Estimate | None


def area_metrics(
    normal: Sequence[ImageHistograms],
    anomalous: Sequence[ImageHistograms],
    subsets: Sequence[np.ndarray],
    *,
    resamples: int,
    seed: int,
) -> tuple[list[AreaMetrics], list[float]]:
    """The metrics of each subset, and the AUPIMO of each anomalous image, in [0, 1]; 0 without normal images.

    `subsets`: positions of anomalous images, int (n,). Each is evaluated with all normal images. The bootstrap
    (Efron & Tibshirani 1993, ch. 13, percentiles) resamples normal and anomalous images separately. A subset has the
    same resamples as it would have alone. Resamples without a normal pixel are left out.
    """
    normal_weights = _bootstrap_weights(np.random.default_rng(seed), len(normal), resamples)
    normal_pixels = np.array([image.normal_pixels for image in normal])
    mean_fpr = _Curve(normal_weights.sum(axis=1))
    image_recall = _Curve(np.array([image.anomalous_pixels for image in anomalous]))
    image_aupimo = np.zeros(len(anomalous))
    curves: list[_SubsetCurves] = []
    for members in subsets:
        random = np.random.default_rng(seed)
        _bootstrap_weights(random, len(normal), resamples)  # the draws of the normal images come first
        weights = _bootstrap_weights(random, len(members), resamples)
        images = [anomalous[member] for member in members]
        curves.append(_SubsetCurves(images, members, weights, normal_weights @ normal_pixels, bool(normal)))

    bins = occupied_bins([*normal, *anomalous])
    for start in range(0, len(bins), _CHUNK):
        chunk = bins[start : start + _CHUNK]
        of_normal = dense([image.normal for image in normal], chunk)
        counts = _Counts(
            background=normal_weights @ of_normal,
            mean_fpr=mean_fpr.extend((normal_weights / normal_pixels) @ of_normal),
            normal=dense([image.normal for image in anomalous], chunk),
            anomalous=dense([image.anomalous for image in anomalous], chunk),
            overlap=dense([image.overlap for image in anomalous], chunk),
            thresholds=lower_edges(chunk),
        )
        for each in curves:
            each.extend(counts)
        recall = image_recall.extend(counts.anomalous)
        image_aupimo += mean_recall(counts.mean_fpr[:1], recall, *AUPIMO_BOUNDS, logarithmic=True)
    return [each.metrics() for each in curves], image_aupimo.clip(0, 1).tolist()


def mean_recall(
    fpr: np.ndarray, recall: np.ndarray, low: float, high: float, *, logarithmic: bool = False
) -> np.ndarray:
    """The mean of recall over the false-positive rates in [low, high], or over their logarithm: float64 (rows,).

    `fpr`, `recall`: points of curves, float64 (rows, points), not decreasing; one row of `fpr` serves all rows of
    `recall`. A part of a curve gives its part of the mean. The integral of the linear interpolation is exact, also over
    the logarithm, for which `low` > 0.
    """
    if (fpr[:, 0] >= high).all():
        return np.zeros(len(recall))
    before, after = fpr[:, :-1], fpr[:, 1:]
    start, end = np.clip(before, low, high), np.clip(after, low, high)
    # recall = recall_before + slope * (fpr - before); `width` and `moment` are the integrals of 1 and of (fpr - before)
    if logarithmic:
        width = np.log(end / start)
        moment = (end - start) - before * width
        total = np.log(high / low)
    else:
        width = end - start
        moment = width * ((start - before) + (end - before)) / 2
        total = high - low
    moment /= np.where(after > before, after - before, 1)  # a step without false positives has width 0
    return (width * recall[:, :-1] + moment * np.diff(recall, axis=1)).sum(axis=1) / total


class _Curve:
    """Shares of totals, float64 (rows,), at or above falling thresholds. A row with a total of 0 stays 0."""

    def __init__(self, total: np.ndarray) -> None:
        self._scale = 1 / np.where(total > 0, total, 1)
        self._sum = np.zeros(len(total))

    def extend(self, sums: np.ndarray) -> np.ndarray:
        """The last point and those of the next thresholds, (rows, n + 1), from the sums per bin, (rows, n)."""
        points = np.column_stack([self._sum, sums]).cumsum(axis=1)
        self._sum = points[:, -1].copy()
        return points * self._scale[:, None]


@dataclass(frozen=True, slots=True)
class _Counts:
    """The sums in a chunk of n bins, float64, highest value first."""

    background: np.ndarray
    """Pixels of normal images, (1 + resamples, n)."""
    mean_fpr: np.ndarray
    """The false-positive rate of AUPIMO, (1 + resamples, n + 1)."""
    normal: np.ndarray
    """Normal pixels of anomalous images, (anomalous images, n)."""
    anomalous: np.ndarray
    """Anomalous pixels, (anomalous images, n)."""
    overlap: np.ndarray
    """Shares of the regions, summed over the regions, (anomalous images, n)."""
    thresholds: np.ndarray
    """float32 (n,)."""


class _SubsetCurves:
    """The areas under the curves of some anomalous images; row 0 is the images themselves, the others are resamples."""

    def __init__(
        self,
        images: Sequence[ImageHistograms],
        members: np.ndarray,
        weights: np.ndarray,
        background: np.ndarray,
        has_normal_images: bool,
    ) -> None:
        self._members = members
        self._weights = weights
        self._areas = np.array([image.anomalous_pixels for image in images])
        negatives = background + weights @ np.array([image.normal_pixels for image in images])
        self._positives = float(self._areas.sum())
        self._fpr = _Curve(negatives)
        self._recall = _Curve(weights @ self._areas)
        self._pro = _Curve(weights @ np.array([image.regions for image in images]))
        self._mean_recall = _Curve(weights.sum(axis=1))
        exist = np.column_stack([negatives > 0] * 3 + [np.full(len(weights), has_normal_images)])
        self._areas_under = np.where(exist & bool(images), 0.0, np.nan)
        self._found = self._predicted = 0.0  # pixels above the thresholds so far
        self._best_f1 = BestF1(0, 0)

    def extend(self, counts: _Counts) -> None:
        """Adds the next chunk of thresholds."""
        weights, members = self._weights, self._members
        positives = counts.anomalous[members]
        found = weights @ positives
        false = counts.background + weights @ counts.normal[members]
        fpr, pro = self._fpr.extend(false), self._pro.extend(weights @ counts.overlap[members])
        recalls = self._mean_recall.extend((weights / self._areas) @ positives)
        self._areas_under += np.column_stack(
            [
                mean_recall(fpr, self._recall.extend(found), 0, 1),
                mean_recall(fpr, pro, 0, 0.3),
                mean_recall(fpr, pro, 0, 0.05),
                mean_recall(counts.mean_fpr, recalls, *AUPIMO_BOUNDS, logarithmic=True),
            ]
        )
        self._extend_f1(found[0], false[0], counts.thresholds)

    def _extend_f1(self, found: np.ndarray, false: np.ndarray, thresholds: np.ndarray) -> None:
        above = self._found + found.cumsum()
        predicted = self._predicted + (found + false).cumsum()
        self._found, self._predicted = float(above[-1]), float(predicted[-1])
        f1 = 2 * above / np.maximum(predicted + self._positives, 1)
        best = int(f1.argmax())
        if f1[best] > self._best_f1.value:
            self._best_f1 = BestF1(float(f1[best]), float(thresholds[best]))

    def metrics(self) -> AreaMetrics:
        """The metrics after the last chunk."""
        auroc, pro_30, pro_5, aupimo = (_estimate(column) for column in self._areas_under.T)
        return AreaMetrics(auroc, pro_30, pro_5, None if auroc is None else self._best_f1, aupimo)


def _bootstrap_weights(random: np.random.Generator, count: int, resamples: int) -> np.ndarray:
    """How often each of `count` images is drawn, float64 (1 + resamples, count); once each in row 0."""
    if not count:
        return np.ones((1 + resamples, 0))
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn])


def _estimate(samples: np.ndarray) -> Estimate | None:
    """From a value and its resamples, float64 (1 + resamples,); NaN where the metric does not exist."""
    if np.isnan(samples[0]):
        return None
    samples = samples[~np.isnan(samples)].clip(0, 1)  # rounding
    tails = (1 - CONFIDENCE) / 2
    value, (low, high) = float(samples[0]), np.quantile(samples, (tails, 1 - tails))
    # The interval includes the value: percentiles alone need not, because resamples contain ties.
    return Estimate(value, min(float(low), value), max(float(high), value))
