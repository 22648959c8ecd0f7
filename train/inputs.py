"""What the network sees of an image, from the options of `train`: the view, its tiles, and the ignored parts."""

from pathlib import Path

import numpy as np

from msc_edge.errors import SourceError, UnreadableImageError, UsageError
from msc_edge.ignore_mask import IgnoreMask
from msc_edge.images import read_image
from msc_edge.preprocessing import Preprocessing, PresetName, Region, Tiles, preset
from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones.architecture import Architecture
from msc_edge.train.patches.taps import MARGIN

_SAME_SHAPE = 0.01  # relative difference of two aspect ratios


class IgnoreMaskFile:
    """An image of the size of the frames, white where they are not inspected."""

    def __init__(self, path: Path) -> None:
        """Read the file. UsageError if it is not a readable image."""
        try:
            self._mask = read_image(path)
        except UnreadableImageError as error:
            raise UsageError(f"--ignore-mask {path}: {error}; pass an image that is white where to ignore") from error
        self._path = path

    def of(self, spec: Preprocessing) -> IgnoreMask:
        """The mask of the input of the network. UsageError if nothing or everything is ignored."""
        height, width = self._mask.shape[:2]
        if spec.region and not spec.region.fits(height=height, width=width):
            raise UsageError(
                f"--ignore-mask {self._path}: is {width}x{height} pixels, and --roi is not inside it; the mask must be "
                "of the size of the images"
            )
        ignored = spec.ignored_by(self._mask)
        if ignored.all() or not ignored.any():
            what, why = (
                ("everything", "only black parts are inspected") if ignored.all() else ("nothing", "no white part")
            )
            raise UsageError(
                f"--ignore-mask {self._path}: {what} that the network sees would be ignored ({why}); paint white what "
                "to ignore and black what to inspect, in an image of the size of the frames"
            )
        return IgnoreMask.of(ignored)

    def check(self, image: np.ndarray, name: str, *, region: Region | None = None) -> None:
        """SourceError if an image, (height, width, 3), has another shape than the mask; with a region, another size."""
        (height, width), (mask_height, mask_width) = image.shape[:2], self._mask.shape[:2]
        other_shape = abs(height * mask_width / (width * mask_height) - 1) > _SAME_SHAPE
        if other_shape or (region and (height, width) != (mask_height, mask_width)):
            raise SourceError(
                f"{name}: is {width}x{height} pixels, and --ignore-mask {self._path} is {mask_width}x{mask_height}; "
                f"the mask must have the {'size' if region else 'shape'} of the images"
            )


def preprocessing_of(
    name: PresetName,
    *,
    image_size: int,
    region: Region | None,
    tiles: Tiles | None,
    ignore_mask: IgnoreMaskFile | None,
    scores: ScoreKind,
    architecture: Architecture,
) -> Preprocessing:
    """The preprocessing of the options. UsageError for those that do not fit together."""
    if tiles and scores == "image":
        raise UsageError("--tiles: only patches are cut from tiles, and --scores image has none; omit one of them")
    margin = 0 if scores == "image" else MARGIN
    spec = preset(
        name,
        image_size=image_size,
        region=region,
        tiles=tiles,
        margin=margin,
        mean=architecture.mean,
        std=architecture.std,
    )
    if ignore_mask is None:
        return spec
    if name != "whole-frame":
        raise UsageError(f"--ignore-mask and --preset {name}: the mask covers the whole frame; omit one of them")
    return spec.model_copy(update={"ignore": ignore_mask.of(spec)})
