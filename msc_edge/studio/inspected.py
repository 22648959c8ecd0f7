"""What of the images is inspected: the region and the ignore mask of a project, which must fit together."""

import itertools

import numpy as np

from msc_edge.drawing import encode_image
from msc_edge.errors import UsageError
from msc_edge.files import written_whole
from msc_edge.ignore_mask import WHITE
from msc_edge.images import decode_image
from msc_edge.preprocessing import Region
from msc_edge.studio.checked import CheckResult
from msc_edge.studio.images import size_of
from msc_edge.studio.mask_check import check_mask, check_stored_mask
from msc_edge.studio.workspace import Project

_LEAST_SIDE = 16  # pixels of a region
_MOST_LISTED = 200  # images to choose from


def present(result: CheckResult | None) -> list[int]:
    """The places of the checked images that training would use and that are still there, the first of them."""
    found = (place for place in result.usable if result.path_of(place).is_file()) if result else iter(())
    return list(itertools.islice(found, _MOST_LISTED))


def store_region(project: Project, region: Region | None) -> None:
    """Store another region; None: the whole image. UsageError for one that does not fit the images or the mask."""
    _check_region(project, region)
    check_stored_mask(project.mask, region)
    project.change(region=region)


def store_mask(project: Project, data: bytes, region: Region | None) -> bool:
    """Store another ignore mask, the bytes of an image, with the region. False: nothing is white, so there is no mask.

    Both at once: a new mask need not fit the old region, nor a new region the old mask. Errors as `store_region`.
    """
    mask = decode_image(np.frombuffer(data, np.uint8))
    _check_region(project, region)
    ignores = bool((mask > WHITE).any())
    if ignores:
        check_mask(mask, region)
        with written_whole(project.mask) as partial:
            partial.write_bytes(encode_image(mask, ".png"))
    else:
        project.mask.unlink(missing_ok=True)
    project.change(region=region)
    return ignores


def _check_region(project: Project, region: Region | None) -> None:
    """UsageError for a region that is not inside the checked images, or too small."""
    result = CheckResult.of(project.check)
    places = present(result)
    if region is None or result is None or not places:
        return
    width, height = size_of(result.path_of(places[0]))
    if not region.fits(height=height, width=width):
        raise UsageError(f"the region is not inside the images, which are {width} x {height} pixels; make it smaller")
    if min(region.width, region.height) < _LEAST_SIDE:
        raise UsageError(
            f"the region is {region.width} x {region.height} pixels; make it at least {_LEAST_SIDE} wide and "
            f"{_LEAST_SIDE} high"
        )
