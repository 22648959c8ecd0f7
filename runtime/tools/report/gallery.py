"""The galleries of a report: images with their results, each beside its nearest normal images.

All images are small JPEGs inside the page.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.drawing import thumbnail
from msc_edge.errors import KitError, UnreadableImageError
from msc_edge.images import decode_image, read_image
from msc_edge.kit.layout import thumbnail_file
from msc_edge.kit.opening import Kit
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.report.mask_outline import MaskOutline

_NEAREST = 2  # normal images beside an image


@dataclass(frozen=True)
class Nearest:
    """A normal image beside an image."""

    name: str
    distance: float
    """Cosine distance, in [0, 2]."""
    url: str
    """A data: URL; "" where the kit has no thumbnail, or one that is not an image."""


@dataclass(frozen=True)
class Card:
    """One image of a gallery."""

    name: str
    label: str
    result: Result
    url: str
    """A data: URL; "" where the image cannot be shown."""
    overlay: str
    """The image with its heatmap, a data: URL; "" where there is none."""
    nearest: tuple[Nearest, ...]
    problem: str
    """Why the image cannot be shown; "" where it can."""
    note: str = ""
    """A line below the verdict."""
    outline: MaskOutline | None = None
    """The outline of the ground-truth mask, drawn over the heatmap."""


@dataclass(frozen=True)
class Gallery:
    """Images under one heading."""

    title: str
    text: str
    total: int
    """How many images there are; the cards are the first of them."""
    cards: Sequence[Card]
    masks: bool = False
    """Whether the images have outlines of masks."""

    @property
    def heatmaps(self) -> bool:
        """Whether an image has a heatmap; the gallery then has a legend."""
        return any(card.overlay for card in self.cards)


def card(
    kit: Kit,
    image: ImageResult,
    *,
    name: str,
    label: str = "",
    note: str = "",
    file: Path | None = None,
    earlier_rows: float | None = None,
) -> Card:
    """The card of a scored image.

    An image with a thumbnail is shown as it was scored. Without one (a row of an earlier run) `file` is decoded, unless
    it changed after `earlier_rows`, the time of the last such row in seconds since 1970.
    """
    assert image.result is not None, "galleries hold scored images"
    nearest = tuple(
        Nearest(each.path, each.distance, _thumbnail_url(kit, each.row))
        for each in image.result.nearest_images[:_NEAREST]
    )
    url, overlay, problem = "", "", ""
    if image.thumbnail is not None:
        url = _jpeg_url(image.thumbnail)
        overlay = _jpeg_url(image.overlay) if image.overlay else ""
    else:
        file = file or Path(image.path)
        try:
            status = file.stat()
            if earlier_rows is not None and max(status.st_mtime, status.st_ctime) > earlier_rows:
                problem = "the file has changed since it was scored"
            else:
                url = _jpeg_url(thumbnail(read_image(file, kit.manifest.decode)))
        except OSError as error:
            problem = f"the file cannot be read any more: {error.strerror or error}"
        except UnreadableImageError as error:
            problem = f"the file cannot be read any more: {error}"
    return Card(name, label, image.result, url, overlay, nearest, problem, note)


def _thumbnail_url(kit: Kit, row: int) -> str:
    name = thumbnail_file(row)
    if name not in kit.manifest.files:
        return ""
    try:
        # Encoded again: the file may be anything, of any size, and the page embeds it.
        return _jpeg_url(thumbnail(decode_image(np.frombuffer(kit.file(name).read_bytes(), np.uint8))))
    except OSError as error:  # the kit was removed since it was opened
        raise KitError(f"{kit.path}: {name} cannot be read any more: {error.strerror or error}") from error
    except UnreadableImageError:
        return ""


def _jpeg_url(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
