"""The orientation of an image, as TIFF 6.0 and EXIF number it."""

import numpy as np


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (height, width, channels) as it is to be seen. `orientation`: 1 to 8; others leave it as it is."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    down = {3, 4, 7, 8}
    across = {2, 3, 6, 7}
    return np.ascontiguousarray(image[:: -1 if orientation in down else 1, :: -1 if orientation in across else 1])
