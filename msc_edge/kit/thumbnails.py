"""The thumbnails of a kit: a small copy of each normal image in the memory bank."""

from pathlib import Path

import numpy as np

from msc_edge.arguments import whole_argument
from msc_edge.errors import KitError, UnreadableImageError, UsageError
from msc_edge.images import decode_image
from msc_edge.kit.container import read_file
from msc_edge.kit.layout import thumbnail_file
from msc_edge.kit.manifest import Manifest


def read_thumbnail(kit: Path, manifest: Manifest, row: int) -> np.ndarray:
    """The thumbnail of one row of the memory bank, uint8 (height, width, 3), RGB, from a kit that was verified before.

    `kit`: the folder or .zip of this manifest. Raises UsageError for a row that the bank does not have and for a kit
    without thumbnails, KitError when the file has changed, cannot be read or is not an image.
    """
    count = manifest.normal_images.count
    row = whole_argument("row of the memory bank", row, least=0, most=count - 1)
    name = thumbnail_file(row)
    if name not in manifest.files:
        raise UsageError(f"kit {manifest.name} has no thumbnail of row {row}; export it again with --thumbnails")
    content = read_file(kit, name, manifest.files[name])
    try:
        return decode_image(np.frombuffer(content, np.uint8))
    except UnreadableImageError as error:
        raise KitError(f"{kit}: {name}: {error}; export the kit again") from error
