"""The galleries of a report: images with their results, each beside its nearest normal images.

All images are small JPEGs inside the page.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.describe import describe_disagreement, describe_least_p_value, describe_p_value, is_least_p_value
from msc_edge.drawing import SHOWN_SIDE, thumbnail
from msc_edge.errors import KitError, UnreadableImageError
from msc_edge.images import decode_image, read_image
from msc_edge.kit.layout import thumbnail_file
from msc_edge.kit.opening import Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.report.mask_outline import MaskOutline
from msc_edge.runtime.tools.report.outcome import Outcome, Truth, outcome_of

_NEAREST = 2  # normal images beside an image
_VERDICTS: dict[Verdict, str] = {"normal": "normal", "warn": "warning", "reject": "rejected"}


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
    truth: Truth | None
    """None where the label is not known; colours then show the verdict."""
    result: Result
    url: str
    """A data: URL; "" where the image cannot be shown."""
    overlay: str
    """The image with its heatmap, a data: URL; "" where there is none."""
    nearest: tuple[Nearest, ...]
    problem: str
    """Why the image cannot be shown; "" where it can."""
    p_value: str
    """In words; "" for a limit that was set by hand."""
    least_p_value: str
    """What the p-value means where no calibration image scored as high; else ""."""
    note: str = ""
    """A line below the verdict."""
    outline: MaskOutline | None = None
    """The outline of the ground-truth mask, drawn over the heatmap."""

    @property
    def outcome(self) -> Outcome | None:
        """Whether the verdict is right; None where the label is not known."""
        return self.truth and outcome_of(self.result.verdict, self.truth)

    @property
    def kind(self) -> str:
        """What colours and signs show: `right` or `wrong` where the label is known, else the verdict."""
        return self.outcome.kind if self.outcome else self.result.verdict

    @property
    def disagreement(self) -> str:
        """Why verdict and heatmap say different things; "" where they agree, or where the kit has no heatmap."""
        regions = None if self.result.patch_score is None else len(self.result.regions)
        return describe_disagreement(self.result.verdict, regions=regions)

    @property
    def alt_text(self) -> str:
        """What is seen, for those who do not see it."""
        shown = " with its heatmap" if self.overlay else ""
        shown += " and the outline of its mask" if self.outline else ""
        above = "over" if self.result.score > self.result.limit else "not over"
        text = f"{self.name}{shown}: {_VERDICTS[self.result.verdict]}, score {self.result.score:.4g} {above} the limit "
        text += f"{self.result.limit:.4g}"
        if self.truth is None:
            return text
        return f"{text}, {f'a defect of type {self.truth.label}' if self.truth.is_anomalous else 'a good part'}"


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

    @property
    def least_p_value(self) -> str:
        """What the least p-value means, where a card has it; else ""."""
        return next((card.least_p_value for card in self.cards if card.least_p_value), "")

    @property
    def p_values_differ(self) -> bool:
        """Whether a card has another p-value than the least one. If not, the cards do not repeat it."""
        return any(card.p_value and not card.least_p_value for card in self.cards)


def card(
    kit: Kit,
    image: ImageResult,
    *,
    name: str,
    detector: Detector | None = None,
    truth: Truth | None = None,
    note: str = "",
    file: Path | None = None,
    earlier_rows: float | None = None,
) -> Card:
    """The card of a scored image. `detector`: that scored it; None: the kit alone, with its own calibration.

    An image with a thumbnail is shown as it was scored. Without one (a row of an earlier run) `file` is decoded, unless
    it changed after `earlier_rows`, the time of the last such row in seconds since 1970.
    """
    result = image.result
    assert result is not None, "galleries hold scored images"
    nearest = tuple(
        Nearest(each.path, each.distance, _thumbnail_url(kit, each.row, detector))
        for each in result.nearest_images[:_NEAREST]
    )
    p_value = least = ""
    if result.p_value is not None:
        own = kit.manifest.models[result.model].calibration.calibration
        calibration = detector.calibration if detector else own
        p_value = describe_p_value(result.p_value, calibration)
        least = describe_least_p_value(calibration) if is_least_p_value(result.p_value, calibration) else ""
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
                url = _jpeg_url(thumbnail(read_image(file, kit.manifest.decode), side=SHOWN_SIDE))
        except OSError as error:
            problem = f"the file cannot be read any more: {error.strerror or error}"
        except UnreadableImageError as error:
            problem = f"the file cannot be read any more: {error}"
    return Card(name, truth, result, url, overlay, nearest, problem, p_value, least, note)


def _thumbnail_url(kit: Kit, row: int, detector: Detector | None) -> str:
    if detector and row >= kit.manifest.normal_images.count:
        return _jpeg_url(thumbnail(detector.thumbnail(row)))
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
