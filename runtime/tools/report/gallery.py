"""Images in a report: made small, and put into the page itself, each beside the normals that it was compared with."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from msc_edge.errors import KitError, SourceError
from msc_edge.images import read_image
from msc_edge.kit.layout import THUMBNAILS
from msc_edge.kit.opening import Kit
from msc_edge.runtime.batch import Row
from msc_edge.runtime.detector import Detector

_SIDE = 320  # of an image in the page, in pixels
_NEAREST = 2  # normals beside an image
# Scores of one kit and one image agree far better than this on any machine, and a row has six decimals.
_SAME_IMAGE = 1e-5


@dataclass(frozen=True)
class Near:
    """A normal that an image was compared with."""

    name: str
    image: str
    """A data: URL; "" where the kit has no thumbnail of it."""
    distance: float
    """Cosine distance, in [0, 2]."""


@dataclass(frozen=True)
class Card:
    """One image in the gallery."""

    name: str
    label: str
    row: Row
    """Of the image when it was scored."""
    image: str
    """A data: URL; "" where it cannot be shown."""
    nearest: tuple[Near, ...]
    trouble: str
    """Why it cannot be shown; "" where it can."""


def card(detector: Detector, kit: Kit, path: Path, row: Row, *, name: str, label: str = "") -> Card:
    """The card of an image that has a row. It is scored once more, for its nearest_images; KitError as in scoring.

    An image that has gone or has changed since has a card that says so.
    """
    try:
        image = read_image(path, detector.manifest.decode)
        result = detector.score(image)
    except SourceError as error:
        return Card(name, label, row, "", (), f"it was scored, and cannot be read any more: {error}")
    if abs(result.score - (row.score or 0.0)) > _SAME_IMAGE:
        return Card(name, label, row, "", (), "the file has changed since it was scored")
    nearest = tuple(
        Near(each.path, _thumbnail(kit, each.row), each.distance) for each in result.nearest_images[:_NEAREST]
    )
    return Card(name, label, row, as_data_url(image), nearest, "")


def as_data_url(image: np.ndarray) -> str:
    """An image, uint8 (h, w, 3) RGB, made small enough for the page."""
    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return _jpeg_url(data.tobytes())


def _thumbnail(kit: Kit, row: int) -> str:
    name = f"{THUMBNAILS}/{row:05d}.jpg"
    if name not in kit.manifest.files:
        return ""
    try:
        return _jpeg_url(kit.path(name).read_bytes())
    except OSError as error:  # the kit has gone since it was opened
        raise KitError(f"{kit.name}: {name} cannot be read any more: {error.strerror or error}") from error


def _jpeg_url(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
