"""Whether an ignore mask leaves something to inspect, said before a training, not after it has started."""

from pathlib import Path

import numpy as np

from msc_edge.errors import UnreadableImageError, UsageError
from msc_edge.images import read_image
from msc_edge.preprocessing import Region, preset
from msc_edge.studio.training import TILES, Detail

_WHERE = "on the page Region"


def check_mask(mask: np.ndarray, region: Region | None, *, detail: Detail = "tiles") -> None:
    """UsageError for a mask that ignores everything or nothing of what a training would see.

    `mask`: uint8 (height, width, 3), white where it is ignored. `detail`: how fine the training looks; the default is
    the finest, so what it refuses no training can use.
    """
    height, width = mask.shape[:2]
    if region and not region.fits(height=height, width=width):
        raise UsageError(
            f"the region is not inside the ignore mask, which is {width} x {height} pixels; delete the mask and draw "
            f"it again {_WHERE}"
        )
    ignored = preset("whole-frame", region=region, tiles=TILES[detail]).ignored_by(mask)
    part = "the region" if region else "the image"
    if ignored.all():
        raise UsageError(
            f"the ignore mask covers all of {part}, so nothing would be inspected; inspect a part of it again, or "
            f"delete the mask, {_WHERE}"
        )
    if not ignored.any():
        raise UsageError(
            f"the ignore mask covers nothing of {part} that the network can see; draw it larger and inside of {part}, "
            f"or delete the mask, {_WHERE}"
        )


def check_stored_mask(path: Path, region: Region | None, *, detail: Detail = "tiles") -> None:
    """The same for a file; nothing where there is none. UsageError also for a file that cannot be read."""
    if not path.is_file():
        return
    try:
        mask = read_image(path)
    except UnreadableImageError as error:
        raise UsageError(f"the ignore mask cannot be read ({error}); delete it and draw it again {_WHERE}") from error
    check_mask(mask, region, detail=detail)
