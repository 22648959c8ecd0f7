"""Small images of the normals, to show beside a reject what it was compared with."""

from pathlib import Path

import cv2
import numpy as np

SIDE = 256


def thumbnail_name(row: int) -> str:
    """File name of the thumbnail of a row of the bank."""
    return f"{row:05d}.jpg"


def write_thumbnail(path: Path, image: np.ndarray) -> None:
    """Write a JPEG of an image, uint8 (h, w, 3) RGB, with the longer side at most SIDE; OSError if it cannot."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    # Not cv2.imwrite: it fails on non-ASCII paths on Windows, and says nothing when the disk is full.
    path.write_bytes(data.tobytes())
