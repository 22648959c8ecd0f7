"""Ground-truth masks of a labelled data set, and the metrics of anomaly maps against them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from msc_edge.anomaly_map import MapGeometry
from msc_edge.calibration import Calibration, Limit
from msc_edge.errors import SourceError, UnreadableImageError
from msc_edge.images import read_image
from msc_edge.kit.model_entry import RegionCalibration
from msc_edge.map_metrics.curves import AUPIMO_BOUNDS, Estimate
from msc_edge.map_metrics.metrics import GroupMetrics, MapEvaluation
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset, LabelledImage
from msc_edge.runtime.tools.evaluate.metrics import Interval

_SAME_SHAPE = 0.02  # relative difference of two aspect ratios: annotation tools round
_SUFFIXES = (".png", "_mask.png", ".bmp", ".tif", ".tiff")  # JPEG is not exact


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MapOfType(_Part):
    """The maps of one defect type against those of all normal images."""

    name: str = Field(description="the name of the folder")
    images: PositiveInt = Field(description="images with a mask")
    pixel_auroc: float
    au_pro_30: float
    au_pro_5: float
    aupimo: float | None = Field(description="null: the normal images could not be read")


class MapEvaluationResult(_Part):
    """How well anomaly maps agree with masks. All metrics are in [0, 1]; 1 is perfect."""

    images: PositiveInt = Field(description="anomalous images with a mask")
    without_mask: NonNegativeInt = Field(
        description="anomalous images without one, or with a black one; no metric of maps includes them"
    )
    pixel_auroc: Interval = Field(description="over all pixels of all images")
    au_pro_30: Interval = Field(
        description="per-region overlap, averaged over false-positive rates of pixels from 0 to 0.3"
    )
    au_pro_5: Interval = Field(description="the same from 0 to 0.05")
    aupimo: Interval | None = Field(
        description="recall of pixels, averaged over the logarithm of the false-positive rate of normal images from "
        "1e-5 to 1e-4 (arXiv 2401.01984)"
    )
    fpr_step: float | None = Field(
        default=None,
        description="largest change of AUPIMO's false-positive rate by one pixel of the normal images; above 1e-5 they "
        "have too few pixels to resolve AUPIMO; null: written by an older version",
    )
    best_f1: float = Field(description="largest F1 of pixels over all thresholds")
    best_f1_threshold: float = Field(description="value of the map that gives it")
    defect_types: list[MapOfType]

    @property
    def aupimo_is_resolved(self) -> bool:
        """Whether the normal images have enough pixels for AUPIMO's lowest false-positive rate."""
        return self.aupimo is not None and self.fpr_step is not None and self.fpr_step <= AUPIMO_BOUNDS[0]


class RegionsOfNormalImages(_Part):
    """Normal images with any region, at the kit's limit of the map."""

    limit: float = Field(description="values of the map above it are regions")
    target_rate: float = Field(description="target share of normal images with any region")
    expected_rate: float = Field(description="expected share")
    normal_images: PositiveInt
    with_region: NonNegativeInt
    interval: tuple[int, int] = Field(description="90 % interval of `with_region`")


def regions_of_normal_images(regions: RegionCalibration, results: Sequence[Result]) -> RegionsOfNormalImages:
    """Compare the normal images that have a region with the number that is expected."""
    limit: Limit = regions.limit
    calibration: Calibration = regions.calibration
    interval = calibration.alarm_interval(limit, len(results))
    assert interval is not None, "the limit of the map follows from calibration images"
    assert limit.target_rate is not None
    assert limit.expected_rate is not None
    return RegionsOfNormalImages(
        limit=limit.score,
        target_rate=limit.target_rate,
        expected_rate=limit.expected_rate,
        normal_images=len(results),
        with_region=sum(bool(result.regions) for result in results),
        interval=interval,
    )


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """How well the map of one anomalous image agrees with its mask."""

    label: LabelledImage
    mask: Path
    aupimo: float | None
    """In [0, 1], see `ImageAupimo`; None without normal images."""
    overlap: float
    """In [0, 1]: the pixels both above the limit of the map and in the mask, divided by those in either."""
    peak: float
    """The largest value of the map in the mask, as a multiple of the limit; >= 0."""


@dataclass(frozen=True, slots=True)
class MaskedMapsResult:
    """The metrics of all maps, and of each image with a mask, in the order in which they were added."""

    evaluation: MapEvaluationResult
    images: tuple[MaskedImage, ...]


class MaskedMaps:
    """Collects the maps of images that have a mask, and of normal images."""

    def __init__(self, dataset: LabelledDataset, *, seed: int = 0) -> None:
        """Find the masks: `ground_truth/<defect type>/<name>.png` or `<name>_mask.png` in the data set."""
        self._masks = {image.path: _mask_of(image, dataset) for image in dataset.images if image.is_anomalous}
        self._dataset = dataset
        self._evaluation = MapEvaluation(seed=seed)
        self._measured: list[MaskedImage] = []  # no arrays: some hundred bytes for each image
        self._without = 0

    @property
    def has_masks(self) -> bool:
        """Whether any image has one."""
        return any(self._masks.values())

    def refuse_unusable(self) -> None:
        """SourceError where there are folders of masks, and none is the mask of an image, or all are black."""
        if not self.has_masks and (folder := _mask_folder(self._dataset)):
            raise SourceError(
                f"{folder}: none of its files is the mask of an image; expected NAME.png or NAME_mask.png (also .bmp, "
                ".tif) for the image NAME; rename the masks, or move the folder away"
            )
        masks = [mask for mask in self._masks.values() if mask]
        if masks and not any(read_mask(mask).any() for mask in masks):
            raise SourceError(
                f"{masks[0].parent}: all masks of the data set are black; paint white what is anomalous, or move the "
                "masks away"
            )

    def add(self, label: LabelledImage, result: Result) -> None:
        """Add a scored image. A black mask counts as none.

        SourceError for a mask that cannot be read, or has another shape than the image.
        """
        if result.grid_map is None or not self.has_masks:
            return
        if not label.is_anomalous:
            self._evaluation.add(result.grid_map.at_frame(), None, "")
        elif (path := self._masks[label.path]) is None or not (mask := read_mask(path)).any():
            self._without += 1
        else:
            mask = _at_image(path, mask, result.grid_map.geometry)
            found = result.grid_map.at_frame()
            self._evaluation.add(found, mask, label.label)
            self._measured.append(_masked_image(label, path, found, mask, limit=result.grid_map.limit))

    def result(self) -> MaskedMapsResult | None:
        """The metrics; None without a single map and mask."""
        if not self._measured:
            return None
        found = self._evaluation.result()
        overall = found.overall
        assert overall.best_f1
        evaluation = MapEvaluationResult(
            images=len(self._measured),
            without_mask=self._without,
            pixel_auroc=_interval(overall.pixel_auroc),
            au_pro_30=_interval(overall.au_pro_30),
            au_pro_5=_interval(overall.au_pro_5),
            aupimo=_interval(overall.aupimo) if overall.aupimo else None,
            fpr_step=found.fpr_step,
            best_f1=overall.best_f1.value,
            best_f1_threshold=overall.best_f1.threshold,
            defect_types=[_of_type(name, group) for name, group in found.groups.items()],
        )
        aupimo = [each.value for each in found.image_aupimo] if found.image_aupimo else [None] * len(self._measured)
        images = (replace(image, aupimo=value) for image, value in zip(self._measured, aupimo, strict=True))
        return MaskedMapsResult(evaluation, tuple(images))


def _masked_image(
    label: LabelledImage, path: Path, found: np.ndarray, mask: np.ndarray, *, limit: float
) -> MaskedImage:
    above = found > limit
    overlap = np.count_nonzero(above & mask) / np.count_nonzero(above | mask)
    return MaskedImage(label, path, aupimo=None, overlap=overlap, peak=float(found[mask].max()) / limit)


def _of_type(name: str, group: GroupMetrics) -> MapOfType:
    return MapOfType(
        name=name,
        images=group.anomalous_images,
        pixel_auroc=_interval(group.pixel_auroc).value,
        au_pro_30=_interval(group.au_pro_30).value,
        au_pro_5=_interval(group.au_pro_5).value,
        aupimo=group.aupimo.value if group.aupimo else None,
    )


def _interval(estimate: Estimate | None) -> Interval:
    assert estimate is not None, "masks have anomalous and normal pixels"
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)


def _mask_of(image: LabelledImage, dataset: LabelledDataset) -> Path | None:
    for root in dataset.folders:
        for folder in (root / "ground_truth" / image.label, root.parent / "ground_truth" / image.label):
            for suffix in _SUFFIXES:
                if (mask := folder / f"{image.path.stem}{suffix}").is_file():
                    return mask
    return None


def _mask_folder(dataset: LabelledDataset) -> Path | None:
    """The first folder of masks that belongs to a defect type of the data set."""
    types = sorted({image.label for image in dataset.images if image.is_anomalous})
    places = [
        place / "ground_truth" / name for root in dataset.folders for place in (root, root.parent) for name in types
    ]
    return next((folder for folder in places if folder.is_dir() and any(folder.iterdir())), None)


def _at_image(path: Path, mask: np.ndarray, image: MapGeometry) -> np.ndarray:
    """The mask at the size of its image, whose pixels then count as much as those of the other images."""
    height, width = mask.shape
    if abs(height * image.frame_width / (width * image.frame_height) - 1) > _SAME_SHAPE:
        raise SourceError(
            f"{path}: this mask is {width}x{height} pixels, and its image {image.frame_width}x{image.frame_height}; "
            "replace it, or move it away"
        )
    size = image.frame_width, image.frame_height
    if (width, height) == size:
        return mask
    # Each pixel of the image is the mean of the pixels of the mask that it covers.
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5


def read_mask(path: Path) -> np.ndarray:
    """A mask, bool (height, width): true where a pixel is nearer to white than to black, or 1 where all are 0 or 1.

    SourceError where it cannot be read.
    """
    try:
        levels = read_image(path).max(axis=2)
        return levels > (127 if levels.max() > 1 else 0)
    except UnreadableImageError as error:
        raise SourceError(
            f"{path}: this mask cannot be read ({error}); save it as an 8-bit PNG, or move it away"
        ) from error
