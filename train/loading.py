"""Load images for training: decode each file once with the runtime's decoder, and keep a small copy for the views."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msc_edge.errors import UnreadableImageError
from msc_edge.images import DecodePolicy, read_image
from msc_edge.parallel import ordered_map
from msc_edge.preprocessing import Preprocessing
from msc_edge.progress import Report, silent

_DECODERS = 2


def decoded(
    folder: Path,
    names: Sequence[str],
    policy: DecodePolicy,
    *,
    task: str,
    report: Report = silent,
    unreadable: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, image) for the files `names` below `folder`, in order; a few are decoded ahead.

    `unreadable` is called with the name and the reason of each file that cannot be read, which is then skipped.
    Without `unreadable`, such a file raises UnreadableImageError.
    """

    def read(name: str) -> tuple[str, np.ndarray | UnreadableImageError]:
        try:
            return name, read_image(folder / name, policy)
        except UnreadableImageError as error:
            return name, error

    for done, (name, image) in enumerate(ordered_map(read, names, workers=_DECODERS), start=1):
        report(task, done, len(names))
        if isinstance(image, np.ndarray):
            yield name, image
        elif unreadable:
            unreadable(name, str(image))
        else:
            raise UnreadableImageError(f"{folder / name}: {image}") from image


def training_copy(image: np.ndarray, spec: Preprocessing) -> Tensor:
    """Make the training copy of a decoded image: a small copy, uint8 (3, h, w), that all its views are cut from.

    It has 8/7 of `image_size` on the side that counts (256 for 224, the size that the paper evaluates at), and is
    never enlarged. So no epoch decodes a 12-megapixel file again, and 10 000 images need 2 GB of memory.
    """
    if region := spec.region:
        image = image[region.y : region.y + region.height, region.x : region.x + region.width]
    height, width = image.shape[:2]
    side = math.ceil(spec.image_size * 8 / 7)
    if spec.resize == "stretch":
        # Square, so that the crop of a view has the same shape as in the stretched frame.
        size = [min(side, max(height, width))] * 2
    else:
        scale = min(1.0, side / min(height, width))
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    if list(pixels.shape[2:]) == size:
        return pixels[0].clone(memory_format=torch.contiguous_format)
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)[0].contiguous()
