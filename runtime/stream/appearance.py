"""How frames look, in plain figures: brightness, sharpness, and where the part is. They explain a drift of scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_SIDE = 256  # pixels of the longer side: sharpness is that of what can be seen in a small picture
_SMALL = 64  # pixels of the square copy that is compared for its position
_LEAST_RESPONSE = 0.05  # of the phase correlation: below it the two pictures do not show the same thing


@dataclass(frozen=True, slots=True)
class Appearance:
    """How one frame looks."""

    brightness: float
    """Mean grey level, 0 to 255."""
    sharpness: float
    """Mean size of the second derivative, in standard deviations of the grey levels; 0 for a plain image."""
    small: np.ndarray | None
    """Grey copy, uint8 (_SMALL, _SMALL); None where it was not kept."""


def appearance_of(image: np.ndarray) -> Appearance:
    """The appearance of an image, uint8 (height, width, 3) RGB."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(scale * side)) for side in image.shape[1::-1])
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    spread = float(grey.std())
    edges = float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean())
    small = cv2.resize(grey, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)
    return Appearance(float(grey.mean()), edges / spread if spread > 0 else 0.0, small)


def describe_change(before: Sequence[Appearance], after: Sequence[Appearance]) -> list[str]:
    """What has changed from some frames to others, one or more each: figures for a person."""
    bright, sharp = (
        [float(np.mean([getattr(each, name) for each in frames])) for frames in (before, after)]
        for name in ("brightness", "sharpness")
    )
    parts = [f"brightness {bright[0]:.0f} to {bright[1]:.0f} of 255"]
    if sharp[0] > 0:
        parts.append(f"sharpness {100 * (sharp[1] / sharp[0] - 1):+.0f} %")
    moved = _movement(before, after)
    if moved is not None:
        horizontal, vertical = moved
        parts.append(f"position {horizontal:+.1f} % of the width, {vertical:+.1f} % of the height")
    return parts


def _movement(before: Sequence[Appearance], after: Sequence[Appearance]) -> tuple[float, float] | None:
    """How far the mean picture has moved to the right and down, in per cent; None where it cannot be said."""
    means = []
    for frames in (before, after):
        small = [each.small for each in frames if each.small is not None]
        if not small:
            return None
        means.append(np.mean(small, axis=0, dtype=np.float32))
    window = cv2.createHanningWindow((_SMALL, _SMALL), cv2.CV_32F)
    (right, down), response = cv2.phaseCorrelate(means[0], means[1], window)
    return None if response < _LEAST_RESPONSE else (100 * right / _SMALL, 100 * down / _SMALL)
