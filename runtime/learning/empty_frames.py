"""Frames that show no part of this camera: a covered lens, no light, a camera out of focus, something else before it.

What the kit makes of such frames is computed and not chosen: black, white, grey, one colour, noise, and thumbnails out
of focus are scored. An image is refused if it is nearer to such an empty frame than to all normal images, and nearer
than they are; and if it is further from the normal images than all frames without any texture.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from msc_edge.errors import UsageError
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.result import Result

_BLURRED = 4  # thumbnails
_BLURS = (0.05, 0.1)  # standard deviation, of the shorter side


class EmptyFrames:
    """The empty frames as one detector sees them."""

    def __init__(self, kit: Detector, thumbnails: Sequence[np.ndarray], frame: tuple[int, int]) -> None:
        """`kit`: without additions. `thumbnails`: uint8 (height, width, 3). `frame`: height and width of the images."""
        self._kit = kit
        plain = list(_plain(thumbnails, frame))
        frames = [*plain, *_noise(frame), *_out_of_focus(thumbnails)]
        self._names = [name for name, _ in frames]
        results = [kit.score(image) for _, image in frames]
        self._embeddings = np.stack([_embedding(result) for result in results])
        self._to_normal = np.array([_to_normal(result) for result in results])
        self._farthest = max(result.image_score for result in results[: len(plain)])

    def refuse(self, image: np.ndarray) -> None:
        """UsageError for an image, uint8 (height, width, 3), that shows no part, or something else."""
        result = self._kit.score(image)
        distances = 1 - np.vecdot(self._embeddings, _embedding(result))
        nearest, to_normal = int(distances.argmin()), _to_normal(result)
        if distances[nearest] < min(to_normal, self._to_normal[nearest]):
            raise UsageError(
                f"it looks more like {self._names[nearest]} (distance {distances[nearest]:.3g}) than like any normal "
                f"image of the kit ({to_normal:.3g}): is the lens covered or out of focus, or the light off? If such "
                "parts are normal, train a new kit, with images like it"
            )
        if result.image_score > self._farthest:
            raise UsageError(
                f"it is further from the normal images of the kit (distance {result.image_score:.3g}) than a frame of "
                f"one colour is ({self._farthest:.3g}): it shows something else. If it is a new kind of part, train a "
                "kit for it"
            )


def _embedding(result: Result) -> np.ndarray:
    assert result.embedding is not None, "of an image that was just scored"
    return result.embedding


def _to_normal(result: Result) -> float:
    return result.nearest_images[0].distance


def _plain(thumbnails: Sequence[np.ndarray], frame: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Without any texture."""
    for name, level in (("a black frame", 0), ("a white frame", 255), ("a grey frame", 128)):
        yield name, np.full((*frame, 3), level, np.uint8)
    if thumbnails:
        colour = np.mean([each.mean(axis=(0, 1)) for each in thumbnails], axis=0)
        yield "a frame of one colour", np.full((*frame, 3), colour.round(), np.uint8)


def _noise(frame: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    for channels in (1, 3):
        levels = random.integers(0, 256, (*frame, channels), dtype=np.uint8)
        yield "noise", np.broadcast_to(levels, (*frame, 3)).copy()


def _out_of_focus(thumbnails: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for place in np.unique(np.linspace(0, len(thumbnails) - 1, _BLURRED).round().astype(int)) if thumbnails else ():
        image = thumbnails[place]
        for blur in _BLURS:
            yield "a part that is out of focus", cv2.GaussianBlur(image, (0, 0), blur * min(image.shape[:2]))
