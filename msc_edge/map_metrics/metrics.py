"""The metrics of anomaly maps against ground-truth masks, in one pass and without keeping the maps.

Each image is reduced to sparse histograms (see `histograms`), so memory grows with the number of images, not with
their size. Values that differ by less than 2^-10 of themselves may count as ties.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msc_edge.map_metrics.curves import AreaMetrics, BestF1, Estimate, area_metrics
from msc_edge.map_metrics.histograms import ImageHistograms, image_histograms

RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class GroupMetrics:
    """The metrics of some anomalous images and all normal images.

    The pixel AUROC, both AU-PRO and the best F1 are None without anomalous pixels or without normal pixels.
    """

    normal_images: int
    anomalous_images: int
    normal_pixels: int
    """Pixels outside of the masks, in normal and in anomalous images."""
    anomalous_pixels: int
    """Pixels in the masks."""
    regions: int
    """Connected components of the masks, 8-connectivity."""
    pixel_auroc: Estimate | None
    """The area under the ROC curve over all pixels of all images."""
    au_pro_30: Estimate | None
    """The mean per-region overlap for false-positive rates from 0 to 0.3 (Bergmann et al., IJCV 2021, MVTec AD).

    The overlap of a region is its share of pixels at or above the threshold. The false-positive rate is over all normal
    pixels, those of anomalous images included. A constant map has 0.15.
    """
    au_pro_5: Estimate | None
    """As `au_pro_30`, for false-positive rates from 0 to 0.05. A constant map has 0.025."""
    best_f1: BestF1 | None
    """The largest F1 of pixels over all thresholds, and its threshold."""
    aupimo: Estimate | None
    """The mean of `ImageAupimo` over the anomalous images; None without anomalous or without normal images."""


@dataclass(frozen=True, slots=True)
class ImageAupimo:
    """The AUPIMO of one anomalous image (Bertoldo et al., arXiv 2401.01984).

    The mean recall of the pixels of the mask over the logarithm of the false-positive rate, from 1e-5 to 1e-4. The
    false-positive rate of one normal image is its share of pixels at or above the threshold. The curve uses the mean of
    this rate over the normal images. Pixels of anomalous images outside of the mask do not count.
    """

    index: int
    """The position of the image in the calls of `MapEvaluation.add`, from 0."""
    group: str
    """The class of the image."""
    value: float
    """In [0, 1]; 1 is perfect."""


@dataclass(frozen=True, slots=True)
class MapMetrics:
    """All metrics of a set of images."""

    overall: GroupMetrics
    groups: Mapping[str, GroupMetrics]
    """By class, sorted by name: the anomalous images of this class and all normal images."""
    image_aupimo: tuple[ImageAupimo, ...] | None
    """One per anomalous image, in the order of the calls; None without anomalous or without normal images."""
    fpr_step: float | None
    """The largest change of AUPIMO's false-positive rate by one pixel, in (0, 1]; None without normal images.

    Where it is above 1e-5 (fewer than 100 000 pixels in the normal images), the data do not resolve AUPIMO's lower
    bound. At rates below the first step the recall is then the one above the largest normal value, or interpolated
    where values tie with it. With more pixels AUPIMO still depends on the few largest values of the normal images.
    These are often neighbours in one image, and the bootstrap interval is then too narrow.
    """


class MapEvaluation:
    """Collects anomaly maps one by one, and computes their metrics.

    `seed`, `resamples` (>= 1): options of the
    bootstrap over images, with 95 % intervals. The intervals show the effect of the choice of test images, not of
    another training. With one normal and one anomalous image they have no width. ValueError for other options.
    """

    def __init__(self, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        if resamples < 1:
            raise ValueError(f"resamples is {resamples}; pass at least 1")
        self._seed = seed
        self._resamples = resamples
        self._groups: list[str] = []
        self._images: list[ImageHistograms] = []

    def add(self, anomaly_map: np.ndarray, mask: np.ndarray | None, group: str) -> None:
        """Adds one image; its arrays are not kept.

        `anomaly_map`: float32 (height, width), finite and >= 0. `mask`: bool (height, width), True where the image is
        anomalous; None for a normal image. `group`: the class of an anomalous image, "" for a normal image. The size
        may differ between images. ValueError for anything else, and for a mask without a True pixel.
        """
        _validate(anomaly_map, mask, group)
        self._images.append(image_histograms(anomaly_map, mask))
        self._groups.append(group)

    def result(self) -> MapMetrics:
        """The metrics of all images so far; more images can follow. Equal calls give equal results."""
        normal = [image for image, group in zip(self._images, self._groups, strict=True) if not group]
        indices = [index for index, group in enumerate(self._groups) if group]
        anomalous, labels = [self._images[index] for index in indices], [self._groups[index] for index in indices]
        names = sorted(set(labels))
        subsets = [np.arange(len(labels)), *(np.flatnonzero(np.array(labels) == name) for name in names)]
        areas, aupimo = area_metrics(normal, anomalous, subsets, resamples=self._resamples, seed=self._seed)
        overall, *groups = (
            _group_metrics(normal, [anomalous[member] for member in members], metrics)
            for members, metrics in zip(subsets, areas, strict=True)
        )
        image_aupimo = tuple(ImageAupimo(*each) for each in zip(indices, labels, aupimo, strict=True))
        return MapMetrics(
            overall=overall,
            groups=dict(zip(names, groups, strict=True)),
            image_aupimo=image_aupimo if normal and anomalous else None,
            fpr_step=1 / (len(normal) * min(image.normal_pixels for image in normal)) if normal else None,
        )


def _group_metrics(
    normal: Sequence[ImageHistograms], anomalous: Sequence[ImageHistograms], metrics: AreaMetrics
) -> GroupMetrics:
    return GroupMetrics(
        normal_images=len(normal),
        anomalous_images=len(anomalous),
        normal_pixels=sum(image.normal_pixels for image in (*normal, *anomalous)),
        anomalous_pixels=sum(image.anomalous_pixels for image in anomalous),
        regions=sum(image.regions for image in anomalous),
        pixel_auroc=metrics.pixel_auroc,
        au_pro_30=metrics.au_pro_30,
        au_pro_5=metrics.au_pro_5,
        best_f1=metrics.best_f1,
        aupimo=metrics.aupimo,
    )


def _validate(anomaly_map: np.ndarray, mask: np.ndarray | None, group: str) -> None:
    if anomaly_map.ndim != 2 or not anomaly_map.size or anomaly_map.dtype != np.float32:
        raise ValueError(f"anomaly map is {anomaly_map.dtype} {anomaly_map.shape}, expected float32 (height, width)")
    if not np.isfinite(anomaly_map).all() or anomaly_map.min() < 0:
        raise ValueError("anomaly map has negative or non-finite values; all must be finite and >= 0")
    if mask is None:
        if group:
            raise ValueError(f'group of a normal image is {group!r}, expected ""; an anomalous image needs a mask')
        return
    if not group:
        raise ValueError('group of an anomalous image is ""; pass the name of its class')
    if mask.dtype != np.bool_ or mask.shape != anomaly_map.shape:
        raise ValueError(f"mask is {mask.dtype} {mask.shape}, expected bool {anomaly_map.shape} as the anomaly map")
    if not mask.any():
        raise ValueError("mask of an anomalous image has no True pixel; pass None for a normal image")
