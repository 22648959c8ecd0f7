"""Harmless changes of normal images: light, place and focus, as they differ between two good parts.

How much each score changes under them says how large a score must be to mean something: see `msc_edge.scoring`.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

MOST_COPIES = 256
_BRIGHTNESS = 0.2  # most, each way
_SHIFT = 0.02  # of the shorter side, each way
_ROTATION = 3.0  # degrees, each way; less for a long frame, whose ends would move far
_BLUR = 0.5  # pixels, where the shorter side is seen by _VIEW pixels; every second copy
_VIEW = 224


def copied_images(count: int) -> np.ndarray:
    """Which of `count` images have a changed copy: at most MOST_COPIES, evenly chosen; int64 (m,)."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_COPIES)).round().astype(np.int64))


def changed_copies(images: Iterable[tuple[str, np.ndarray]], *, may_move: bool) -> Iterator[tuple[str, np.ndarray]]:
    """A changed copy of each named image, uint8 (height, width, 3). The same images give the same copies.

    `may_move`: whether the part may be shifted and rotated.
    """
    for number, (name, image) in enumerate(images):
        yield name, harmlessly_changed(image, np.random.default_rng(number), may_move=may_move)


def harmlessly_changed(image: np.ndarray, random: np.random.Generator, *, may_move: bool) -> np.ndarray:
    """One copy: another brightness, a small shift and rotation where it `may_move`, and every second time a blur."""
    brightness, angle, *shift = random.uniform(-1, 1, 4)
    height, width = image.shape[:2]
    if may_move:
        shorter, longer = sorted((height, width))
        turn = _ROTATION * angle * shorter / longer
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1)
        matrix[:, 2] += _SHIFT * shorter * np.array(shift)
        image = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
    if random.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), _BLUR * min(height, width) / _VIEW)
    return np.clip(np.rint(image * (1 + _BRIGHTNESS * brightness)), 0, 255).astype(np.uint8)
