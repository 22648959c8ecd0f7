"""Sparse histograms of anomaly maps: all that the metrics of maps need, in much less memory than the maps.

A bin is the exponent and the first 10 mantissa bits of a float32 value. For values >= 0 the order of the bins is the
order of the values, over their whole range. A bin is at most 2^-10 (0.1 %) of its values wide; below 2^-126 its
width is 2^-136. An offset costs resolution: maps that vary only from 1.00 to 1.01 fill 11 bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

MANTISSA_BITS = 10
_DROPPED_BITS = 23 - MANTISSA_BITS  # float32 has 23 mantissa bits
_BINS = 1 << (31 - _DROPPED_BITS)


@dataclass(frozen=True, slots=True)
class Histogram:
    """A sparse histogram."""

    bins: np.ndarray
    """int32 (n,), ascending."""
    sums: np.ndarray
    """Counts, int32 (n,), or sums of weights, float64 (n,). All > 0."""


@dataclass(frozen=True, slots=True)
class ImageHistograms:
    """The map of one image, split by its mask.

    8 bytes per bin of `normal` and 16 per bin of `anomalous`. There are at most 1024 bins per factor of two between the
    smallest and the largest value, and at most one per pixel.
    """

    normal: Histogram
    """Counts of the pixels outside of the mask."""
    anomalous: Histogram
    """Counts of the pixels in the mask."""
    overlap: Histogram
    """Sums, over the regions of the mask, of the share of the region in each bin. Shares its bins with `anomalous`."""
    normal_pixels: int
    anomalous_pixels: int
    regions: int
    """Connected components of the mask, 8-connectivity."""


def image_histograms(anomaly_map: np.ndarray, mask: np.ndarray | None) -> ImageHistograms:
    """The histograms of a map, float32 (height, width), finite and >= 0, and its mask, bool (height, width).

    None for the mask of a normal image. The arrays are not kept.
    """
    bins = np.abs(anomaly_map).view(np.int32) >> _DROPPED_BITS  # abs: -0.0 has the sign bit
    if mask is None:
        empty = _histogram(np.empty(0, np.int32))
        return ImageHistograms(_histogram(bins.ravel()), empty, empty, bins.size, 0, 0)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    inside, regions = bins[mask], labels[mask].astype(np.intp)
    anomalous = _histogram(inside)
    return ImageHistograms(
        normal=_histogram(bins[~mask]),
        anomalous=anomalous,
        overlap=Histogram(anomalous.bins, _histogram(inside, 1 / np.bincount(regions)[regions]).sums),
        normal_pixels=bins.size - inside.size,
        anomalous_pixels=inside.size,
        regions=count - 1,
    )


def occupied_bins(images: Sequence[ImageHistograms]) -> np.ndarray:
    """All bins with a pixel of any image, int32 (n,), highest value first."""
    occupied = np.zeros(_BINS, dtype=bool)
    for image in images:
        occupied[image.normal.bins] = True
        occupied[image.anomalous.bins] = True
    return np.flatnonzero(occupied)[::-1].astype(np.int32)


def lower_edges(bins: np.ndarray) -> np.ndarray:
    """The smallest value of each bin, float32 (n,), of bins, int32 (n,)."""
    return (bins << _DROPPED_BITS).view(np.float32)


def dense(histograms: Sequence[Histogram], bins: np.ndarray) -> np.ndarray:
    """The sums of histograms in some bins, float64 (histograms, n).

    `bins`: int32 (n,), n > 0, neighbours in the array that `occupied_bins` returns.
    """
    matrix = np.zeros((len(histograms), len(bins)))
    ascending = bins[::-1]
    for row, each in zip(matrix, histograms, strict=True):
        first, end = np.searchsorted(each.bins, (bins[-1], bins[0] + 1))
        row[len(bins) - 1 - np.searchsorted(ascending, each.bins[first:end])] = each.sums[first:end]
    return matrix


def _histogram(bins: np.ndarray, weights: np.ndarray | None = None) -> Histogram:
    """Of bins, int32 (pixels,): counts, or sums of weights, float64 (pixels,) > 0."""
    if not bins.size:
        return Histogram(bins, bins)
    first = bins.min()
    sums = np.bincount(bins - first, weights)
    occupied = np.flatnonzero(sums)
    return Histogram(
        (occupied + first).astype(np.int32), sums[occupied].astype(np.int32 if weights is None else np.float64)
    )
