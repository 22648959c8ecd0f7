"""Pictures in a report: made small, and put into the page itself, each beside the normals that it was compared with."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.errors import MscEdgeError
from msc_edge.images import read_image
from msc_edge.kit import THUMBNAILS, Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.text import one_line

_SIDE = 320  # of a picture in the page, in pixels


@dataclass(frozen=True)
class Card:
    """One picture in the gallery."""

    name: str
    label: str
    picture: str
    """A data: URL."""
    score: float
    p_value: float
    verdict: Verdict
    nearest: tuple[tuple[str, str, float], ...]
    """Of the normals that it was compared with: name, data: URL of the thumbnail ("" without one), distance."""


def card(detector: Detector, kit: Kit, path: Path, *, label: str = "") -> Card | None:
    """Score a picture once more, for all its neighbours; None when it has gone meanwhile."""
    try:
        image = read_image(path, detector.manifest.decode)
        result = detector.score(image)
    except MscEdgeError:
        return None
    return Card(
        name=one_line(str(path)),
        label=label,
        picture=as_data_url(image),
        score=result.score,
        p_value=result.p_value,
        verdict=result.verdict,
        nearest=tuple((one_line(each.path), _thumbnail(kit, each.row), each.distance) for each in result.neighbours),
    )


def as_data_url(image: np.ndarray) -> str:
    """A picture, uint8 (h, w, 3) RGB, made small enough for the page."""
    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _thumbnail(kit: Kit, row: int) -> str:
    name = f"{THUMBNAILS}/{row:05d}.jpg"
    if name not in kit.manifest.files:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(kit.path(name).read_bytes()).decode()}"
