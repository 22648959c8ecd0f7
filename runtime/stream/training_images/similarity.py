"""Near-duplicates: whether a frame shows anything that the images of the folder do not show.

Frames are compared in a small, blurred view, in which the noise of a sensor averages out. One view is first brought to
the light of the other one, in each part of the frame, so that a flickering lamp or a soft shadow changes little. The
difference is that of the cell that differs most: a part that is small in the frame, or a small change of it, is not
averaged away.

How much frames of a standing scene differ depends on the camera, its compression, its lamp and its mount. It is
measured by the same difference, between consecutive frames. docs/decisions.md has the figures behind the constants.
"""

from collections import deque
from collections.abc import Iterable

import cv2
import numpy as np

VIEW_SIDE = 64  # cells of the longer side of a view
COMPARED = 1000  # images, the latest ones: 25 MB at most
LEAST_LIMIT = 6.0  # grey levels of a cell: soft shadows and compression alone make differences of five
MOST_LIMIT = 12.0  # grey levels: parts differ by more, also where a scene never stands still
NOISE_FACTOR = 3.0  # times the noise, which is that of the quietest moments
CONSECUTIVE = 0.5  # seconds between two frames at most, so that they tell how much a standing scene changes
_QUIET = 0.1  # quantile of the differences of consecutive frames: the scene stands still in a tenth of the time
_REMEMBERED = 200  # differences of consecutive frames
_BLUR = 1.0  # standard deviation, in cells
_LIGHT_BLUR = 4.0  # the same, of changes of the light: of a lamp, a shadow, or bands of flicker


def view_of(image: np.ndarray) -> np.ndarray:
    """The view of an image: float32 (rows, columns, 3), at most 64 cells long."""
    height, width = image.shape[:2]
    scale = min(1.0, VIEW_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    cells = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(cells.astype(np.float32), (0, 0), _BLUR)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The difference of two views in the cell that differs most, in grey levels. Infinite for other proportions."""
    light = _light(one)
    return _difference(light, one / light, other / _light(other))


def _light(view: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(view + 1, (0, 0), _LIGHT_BLUR)


def _difference(light: np.ndarray, relative: np.ndarray, other: np.ndarray) -> float:
    """The difference of a view from another one in the light of the first one; both given relative to their light."""
    return float(np.abs(light * (relative - other)).max()) if relative.shape == other.shape else float("inf")


class SimilarityCheck:
    """Compares frames with the latest thousand images of a folder."""

    def __init__(self, kept: Iterable[np.ndarray] = ()) -> None:
        """`kept`: images that were kept by an earlier run, the latest one last."""
        self._kept: deque[np.ndarray] = deque(maxlen=COMPARED)
        for image in kept:
            self.keep(view_of(image))
        self._differences: deque[float] = deque(maxlen=_REMEMBERED)
        self._previous: tuple[np.ndarray, float] | None = None

    @property
    def limit(self) -> float:
        """The largest difference at which two frames count as similar, in grey levels."""
        noise = float(np.quantile(self._differences, _QUIET)) if self._differences else 0.0
        return min(max(LEAST_LIMIT, NOISE_FACTOR * noise), MOST_LIMIT)

    def observe(self, view: np.ndarray, moment: float | None) -> None:
        """Learn the noise from a frame of a time in seconds; from none where the time is not known."""
        previous, self._previous = self._previous, None if moment is None else (view, moment)
        if previous is None or moment is None or not 0 < moment - previous[1] <= CONSECUTIVE:
            return
        if np.isfinite(changed := difference(view, previous[0])):
            self._differences.append(changed)

    def is_similar(self, view: np.ndarray) -> bool:
        """Whether a frame differs too little from one of the images that are kept."""
        limit, light = self.limit, _light(view)
        relative = view / light
        # The latest image first: most frames that are similar show the part that still stands there.
        return any(_difference(light, relative, kept) <= limit for kept in reversed(self._kept))

    def keep(self, view: np.ndarray) -> None:
        """The frame of this view was kept."""
        # Half precision is exact to an eighth of a grey level.
        self._kept.append((view / _light(view)).astype(np.float16))
