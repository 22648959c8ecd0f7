"""Guards: what an addition must not cost. Measured before it counts, against the kit as it was exported.

Confirmed defects that the station keeps must not get a milder verdict. Synthetic anomalies, made from the kit's
thumbnails, must be rejected nearly as often as the kit alone rejects them: many small losses add up to no more than
that. All is compared at the limits that count now, so that nothing but the additions makes a difference. An image that
shows no part of this camera is refused before: see `EmptyFrames`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import cv2
import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.errors import UsageError
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.kept_images import KeptImage
from msc_edge.runtime.learning.empty_frames import EmptyFrames
from msc_edge.runtime.results.result import Result
from msc_edge.synthetic import KINDS, AnomalyKind

MAX_LOST = 0.02
"""Largest share of the synthetic anomalies rejected by the kit alone that additions may lose, all together."""

_SEVERITY = get_args(Verdict)  # the mildest first
_THUMBNAILS = 32
_SHAPE = 0.05  # of the ratio of the sides; a thumbnail has whole pixels
_KINDS: tuple[AnomalyKind, ...] = ("drawn", "pasted")  # shuffled quarters are rejected by any kit


@dataclass(frozen=True)
class Kept:
    """How many of some anomalies are rejected."""

    of: int
    """Rejected by the kit alone."""
    before: int
    """Of these, with the additions so far."""
    after: int
    """Of these, with the new addition, too."""


class Guards:
    """The anomalies for one detector. The model runs once on each; what its outputs are compared with changes."""

    def __init__(self, kit: Detector, frame: tuple[int, int]) -> None:
        """`kit`: without additions. `frame`: height and width of the images to learn."""
        self._kit = kit
        self._defects: dict[int, _Seen] = {}
        stored = _thumbnails(kit)
        self._shapes = [each.shape[:2] for each in stored.values()]
        thumbnails = {row: _of_frame(kit, each, frame) for row, each in stored.items()}
        # On a thumbnail that the kit itself rejects, such as a small one of a large frame, an anomaly shows nothing.
        limit = kit.manifest.models[kit.model].calibration.limits.reject.score
        usable = {row: each for row, each in thumbnails.items() if kit.score(each).score <= limit}
        self._synthetic = [_Seen.of(kit, image) for image in _synthetic_anomalies(usable)]
        scores = [each.result(kit).image_score for each in self._synthetic]
        self._empty = EmptyFrames(kit, list(thumbnails.values()), frame, farthest_anomaly=max(scores, default=0.0))

    def refuse_other_shape(self, image: np.ndarray) -> None:
        """UsageError for an image, uint8 (height, width, 3), of another shape than all thumbnails of the kit have."""
        height, width = image.shape[:2]
        alike = (abs(width * high - height * wide) <= _SHAPE * height * wide for high, wide in self._shapes)
        if self._shapes and not any(alike):
            high, wide = self._shapes[0]
            raise UsageError(
                f"its shape is {width}x{height}, and the normal images of the kit have that of {wide}x{high}; add "
                "images of the same camera"
            )

    def refuse_empty_frame(self, image: np.ndarray) -> None:
        """UsageError for an image, uint8 (height, width, 3), that shows no part; see `EmptyFrames.refuse`."""
        self._empty.refuse(image)

    def defects(
        self, confirmed: Iterable[tuple[KeptImage, np.ndarray]], kit: Detector, before: Detector, after: Detector
    ) -> Kept:
        """The confirmed defects, uint8 (height, width, 3) each. `kit`: without additions, with the limits that count.

        UsageError when one of them has a milder verdict than by the kit alone.
        """
        seen: list[_Seen] = []
        for image, decoded in confirmed:
            if image.id not in self._defects:
                self._defects[image.id] = _Seen.of(self._kit, decoded)
            defect = self._defects[image.id]
            was, now = defect.verdict(kit), defect.verdict(after)
            if was == "reject":
                seen.append(defect)
            if _SEVERITY.index(now) < _SEVERITY.index(was):
                raise UsageError(
                    f"the confirmed defect {image.id} would be {now!r}, and was {was!r}: it looks too much like this "
                    "image. Is this image normal? Then train a new kit, with images like it"
                )
        return _kept(seen, before, after)

    def synthetic(self, kit: Detector, before: Detector, after: Detector) -> Kept:
        """The synthetic anomalies; see `defects`. UsageError when more than MAX_LOST of them are no longer rejected."""
        kept = _kept([each for each in self._synthetic if each.verdict(kit) == "reject"], before, after)
        if kept.of - kept.after > MAX_LOST * kept.of:
            raise UsageError(
                f"of {kept.of} synthetic anomalies that the kit rejects, {kept.after} would still be rejected (now "
                f"{kept.before}), and at least {1 - MAX_LOST:.0%} must be: this image is unlike the normal images in "
                "too many places. Is it normal? Then train a new kit, with images like it"
            )
        return kept


@dataclass(frozen=True)
class _Seen:
    """An image as a model sees it."""

    output: ModelOutput
    frame: np.ndarray
    """Of the size of the image; its content does not matter."""

    @classmethod
    def of(cls, detector: Detector, image: np.ndarray) -> "_Seen":
        return cls(detector.run(image), np.broadcast_to(np.uint8(0), image.shape))

    def result(self, detector: Detector) -> Result:
        return detector.score_output(self.output, self.frame)

    def verdict(self, detector: Detector) -> Verdict:
        return self.result(detector).verdict


def _kept(seen: Sequence[_Seen], before: Detector, after: Detector) -> Kept:
    counts = (sum(each.verdict(detector) == "reject" for each in seen) for detector in (before, after))
    return Kept(len(seen), *counts)


def _thumbnails(kit: Detector) -> dict[int, np.ndarray]:
    """Some of the kit, by the row of the memory bank; none where it has none."""
    rows = np.unique(np.linspace(0, len(kit.normal_images) - 1, _THUMBNAILS).round().astype(int)).tolist()
    try:
        return {row: kit.thumbnail(row) for row in rows}
    except UsageError:
        return {}


def _of_frame(kit: Detector, thumbnail: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """A thumbnail; of the size of the whole frame where the model cuts a region out of it."""
    if kit.manifest.preprocessing.region is None:
        return thumbnail
    return cv2.resize(thumbnail, frame[::-1], interpolation=cv2.INTER_LINEAR)


def _synthetic_anomalies(thumbnails: Mapping[int, np.ndarray]) -> Iterable[np.ndarray]:
    """The same at every call."""
    for row, thumbnail in thumbnails.items():
        for number, kind in enumerate(_KINDS):
            yield KINDS[kind](thumbnail, np.random.default_rng([row, number]))
