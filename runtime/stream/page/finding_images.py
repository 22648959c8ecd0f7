"""The images of a finding: the frame, its overlay, and the nearest normal image."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from msc_edge.drawing import thumbnail
from msc_edge.errors import UnreadableImageError
from msc_edge.images import read_image
from msc_edge.runtime.stream.page.marks import Marks
from msc_edge.runtime.stream.sinks.image_store import overlay_path

_SIDE = 320  # of an image in the gallery, in pixels
_KINDS = {".jpg": "image/jpeg", ".png": "image/png"}


def image_of(finding: dict[str, Any], marks: Marks, *, drawn: bool) -> Path | None:
    """Where a frame is, with its heatmap if `drawn`; None where it is not, or not any more."""
    if finding["image"] is None:
        return None
    for place in (Path(finding["image"]), marks.kept_image(finding)):
        if place and (path := overlay_path(place) if drawn else place).is_file():
            return path
    return None


def read_whole(path: Path) -> tuple[bytes, str] | None:
    """An image file and its media type; None where it was removed in this moment."""
    try:
        return path.read_bytes(), _KINDS[path.suffix]
    except OSError:
        return None


@lru_cache(maxsize=500)
def small_copy(path: Path) -> bytes | None:
    """A small JPEG of an image file; None where it cannot be read. Names of saved frames are never used again."""
    try:
        return thumbnail(read_image(path), side=_SIDE)
    except UnreadableImageError:
        return None
