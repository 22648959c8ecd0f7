"""The region of interest of a kit, and images that do not contain it."""

import numpy as np

from msc_edge.errors import KitError, SourceError, UnreadableImageError
from msc_edge.formats.opencv import refuse_too_many_pixels
from msc_edge.kit.manifest import Manifest


def refuse_large_region(manifest: Manifest) -> None:
    """KitError for a region of interest that only an image of more pixels than the decoder accepts can contain."""
    if region := manifest.preprocessing.region:
        try:
            refuse_too_many_pixels(region.y + region.height, region.x + region.width)
        except UnreadableImageError as error:
            raise KitError(f"manifest.json: no image contains its region of interest: {error}") from error


def refuse_outside_region(manifest: Manifest, image: np.ndarray) -> None:
    """SourceError for an image, uint8 (height, width, 3), that does not contain the region of interest."""
    height, width = image.shape[:2]
    region = manifest.preprocessing.region
    if region and not region.fits(height=height, width=width):
        raise SourceError(
            f"the image has {width}x{height} pixels, but the kit's region of interest is {region.width}x"
            f"{region.height} pixels at ({region.x}, {region.y}); use images of the training size"
        )
