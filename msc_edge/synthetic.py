"""Synthetic anomalies, made from normal images: they replace defective images, which are usually not available.

Three kinds, from small to large. `drawn`: a patch, scratch or stain. `pasted`: a piece of the image pasted elsewhere,
as in CutPaste (Li et al., arXiv 2104.04015, section 2). `shuffled`: the quarters of the image in another order, for
products whose defects change the whole image. None imitates a real defect of any data set.
"""

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

AnomalyKind = Literal["drawn", "pasted", "shuffled"]

_VISIBLE = 8.0  # mean change within the shape, in grey levels of 255; a smaller change is not visible
_TRIES = 10


def draw_defect(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy of an image, uint8 (h, w, 3), with one drawn defect on at most 8 % of its area."""
    pixels = image.astype(np.float32)
    changed = pixels
    fills = [_FILLS[i] for i in rng.integers(len(_FILLS), size=_TRIES)]
    for fill in [*fills, _tone]:  # a change of tone is always visible
        mask = _SHAPES[rng.integers(len(_SHAPES))]((pixels.shape[0], pixels.shape[1]), rng)[..., None]
        changed = (pixels + mask * (fill(pixels, rng) - pixels)).clip(0, 255)
        if (np.abs(changed - pixels) * mask).sum() >= _VISIBLE * 3 * mask.sum():
            break
    return changed.round().astype(np.uint8)


def paste_piece(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy of an image, uint8 (h, w, 3), with 2 to 15 % of its area pasted elsewhere, sometimes mirrored."""
    height, width = image.shape[:2]
    area = height * width * rng.uniform(0.02, 0.15)
    ratio = np.exp(rng.uniform(np.log(0.3), np.log(3.3)))  # width to height
    rows, columns = int(min(height - 1, np.sqrt(area / ratio))), int(min(width - 1, np.sqrt(area * ratio)))
    (top, left), (to_top, to_left) = ((rng.integers(height - rows), rng.integers(width - columns)) for _ in range(2))
    piece = image[top : top + rows, left : left + columns]
    pasted = image.copy()
    pasted[to_top : to_top + rows, to_left : to_left + columns] = piece[:, ::-1] if rng.random() < 0.5 else piece
    return pasted


def shuffle_quarters(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the quarters of an image, uint8 (h, w, 3), in another order. An odd last row or column is dropped.

    An image with a side of one pixel has no quarters; the result is an unchanged copy.
    """
    if min(image.shape[:2]) < 2:
        return image.copy()
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    quarters = [image[y : y + rows, x : x + columns] for y in (0, rows) for x in (0, columns)]
    order = list(range(4))
    while order == sorted(order):
        order = list(rng.permutation(4))
    return np.vstack([np.hstack([quarters[i] for i in half]) for half in (order[:2], order[2:])])


def faded(image: np.ndarray, anomaly: np.ndarray, strength: float) -> np.ndarray:
    """Blend an image with an anomaly made from it, uint8 (h, w, 3) both. `strength`: its share, in [0, 1]."""
    return cv2.addWeighted(anomaly, strength, image, 1 - strength, 0)


KINDS: dict[AnomalyKind, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "drawn": draw_defect,
    "pasted": paste_piece,
    "shuffled": shuffle_quarters,
}


def _patch(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A rotated rectangle."""
    height, width = size
    area = height * width * np.exp(rng.uniform(np.log(0.003), np.log(0.04)))
    ratio = np.exp(rng.uniform(np.log(1 / 4), np.log(4)))
    sides = max(2.0, np.sqrt(area * ratio)), max(2.0, np.sqrt(area / ratio))
    corners = cv2.boxPoints((_place(size, rng), sides, float(rng.uniform(0, 180))))
    return cv2.fillPoly(np.zeros(size, np.float32), [corners.round().astype(np.int32)], 1.0)


def _scratch(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A curved line, a tenth to two thirds of the image long."""
    pieces, side = 6, min(size)
    turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.3, pieces))
    path = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1) * side * rng.uniform(0.1, 0.66) / pieces, axis=0)
    points = (path - path.mean(axis=0) + _place(size, rng)).round().astype(np.int32)
    thickness = max(1, round(side * rng.uniform(0.005, 0.02)))
    return cv2.polylines(np.zeros(size, np.float32), [points], isClosed=False, color=1.0, thickness=thickness)


def _stain(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A blob with an uneven, soft edge."""
    radius = min(size) * rng.uniform(0.04, 0.12)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    x, y = _place(size, rng)
    stretch = np.exp(rng.uniform(-0.4, 0.4))
    distance = np.hypot((columns - x) * stretch, (rows - y) / stretch) / radius
    uneven = cv2.GaussianBlur(rng.normal(0, 1, size).astype(np.float32), (0, 0), radius / 2)
    return np.clip((1 - distance + 0.4 * uneven / max(float(uneven.std()), 1e-6)) * 3, 0, 1).astype(np.float32)


def _elsewhere(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another place of the image, sometimes mirrored, slightly lighter or darker."""
    shift = [int(side * rng.uniform(0.2, 0.8)) for side in pixels.shape[:2]]
    moved = np.roll(pixels, shift, axis=(0, 1))
    return (moved[:, ::-1] if rng.random() < 0.5 else moved) * rng.uniform(0.8, 1.2)


def _tone(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lighter or darker, grey or coloured. Very dark images become lighter, very light ones darker."""
    mean = pixels.mean()
    sign = 1 if mean < 60 else -1 if mean > 195 else rng.choice([-1, 1])
    change = rng.uniform(20, 80) * (rng.uniform(0.3, 1, 3) if rng.random() < 0.5 else np.ones(3))
    return pixels + (sign * change).astype(np.float32)


def _smeared(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurred: without the texture of the image."""
    return cv2.GaussianBlur(pixels, (0, 0), min(pixels.shape[:2]) * rng.uniform(0.02, 0.06))


def _place(size: tuple[int, int], rng: np.random.Generator) -> tuple[float, float]:
    return float(rng.uniform(0.1, 0.9) * size[1]), float(rng.uniform(0.1, 0.9) * size[0])


_SHAPES = (_patch, _scratch, _stain)
_FILLS = (_elsewhere, _tone, _smeared)
