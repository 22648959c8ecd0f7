"""Frames that show no part of this camera: a covered lens, no light, a camera out of focus, something else before it.

What the kit makes of such frames is computed and not chosen: black, white, grey, one colour, noise, and thumbnails out
of focus are scored. Those that are further from the normal images than each synthetic anomaly are the empty frames. An
image is refused if it is nearer to one of them than to all normal images, and nearer than they are; and if it is
further from the normal images than all frames of one colour.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter

import cv2
import numpy as np

from msc_edge.errors import UsageError
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.result import Result

_BLURRED = 4  # thumbnails
_BLURS = (0.05, 0.1)  # standard deviation, of the shorter side


class EmptyFrames:
    """The empty frames as one detector sees them."""

    def __init__(
        self, kit: Detector, thumbnails: Sequence[np.ndarray], frame: tuple[int, int], *, farthest_anomaly: float
    ) -> None:
        """`kit`: without additions. `thumbnails`: uint8 (height, width, 3). `frame`: height and width of the images.

        `farthest_anomaly`: the largest image score of a synthetic anomaly; 0 if there are none.
        """
        self._kit = kit
        plain = [(name, kit.score(image)) for name, image in _plain(thumbnails, frame)]
        textured = [(name, kit.score(image)) for name, image in (*_noise(frame), *_out_of_focus(thumbnails))]
        self._farthest = max(result.image_score for _, result in plain)
        self._frames = [(name, each) for name, each in (*plain, *textured) if each.image_score > farthest_anomaly]

    def refuse(self, image: np.ndarray) -> None:
        """UsageError for an image, uint8 (height, width, 3), that shows no part, or something else."""
        result = self._kit.score(image)
        to_normal = _to_normal(result)
        distances = [1 - float(np.vecdot(_embedding(each), _embedding(result))) for _, each in self._frames]
        for distance, (name, empty) in sorted(zip(distances, self._frames, strict=True), key=itemgetter(0)):
            if distance < min(to_normal, _to_normal(empty)):
                raise UsageError(
                    f"it looks more like {name} (distance {distance:.3g}) than like any normal image of the kit "
                    f"({to_normal:.3g}): is the lens covered or out of focus, or the light off? If such parts are "
                    "normal, train a new kit, with images like it"
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
