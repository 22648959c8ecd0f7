"""The image that shows whether a processor or a library computes the embeddings that a kit expects."""

import numpy as np

from msc_edge.preprocessing import Preprocessing


def check_image(spec: Preprocessing, *, times: int = 1) -> np.ndarray:
    """The check image of docs/kit-format.md, uint8 (height, width, 3): 96 x 128, or as large as the region needs.

    Without a region it is `times` as high and as wide. In row y and column x: red (2 x + y) mod 256, green (x y / 16)
    mod 256 rounded down, blue 255 or 0 in a chequerboard with squares of eight pixels.
    """
    region = spec.region
    height = region.y + region.height if region else 96 * times
    width = region.x + region.width if region else 128 * times
    y, x = np.mgrid[:height, :width]
    return np.stack([(2 * x + y) % 256, (x * y // 16) % 256, (x // 8 + y // 8) % 2 * 255], axis=-1).astype(np.uint8)
