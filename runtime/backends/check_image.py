"""The image that shows whether a processor or a library computes the embeddings that a kit expects."""

import numpy as np

from msc_edge.preprocessing import Preprocessing

_ROWS_AT_ONCE = 64  # bounds the memory of the whole numbers, which are wider than the pixels


def check_image(spec: Preprocessing, *, times: int = 1) -> np.ndarray:
    """The check image of docs/kit-format.md, uint8 (height, width, 3): 96 x 128, or as large as the region needs.

    Without a region it is `times` as high and as wide. In row y and column x: red (2 x + y) mod 256, green (x y / 16)
    mod 256 rounded down, blue 255 or 0 in a chequerboard with squares of eight pixels.
    """
    region = spec.region
    height = region.y + region.height if region else 96 * times
    width = region.x + region.width if region else 128 * times
    image = np.empty((height, width, 3), np.uint8)
    x = np.arange(width)
    for top in range(0, height, _ROWS_AT_ONCE):
        rows = image[top : top + _ROWS_AT_ONCE]
        y = top + np.arange(len(rows))[:, None]
        rows[..., 0] = (2 * x + y) % 256
        rows[..., 1] = x * y // 16 % 256
        rows[..., 2] = (x // 8 + y // 8) % 2 * 255
    return image
