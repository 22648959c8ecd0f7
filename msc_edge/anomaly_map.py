"""The anomaly map: how much each part of an image differs from normal images, and the regions where it is too much.

The model gives patch distances on a grid. The map is this grid after a Gaussian blur, so that one noisy patch is no
defect; the patch score of an image is the largest value of its map. Position (i, j) of the grid lies on pixel
(margin + stride i, margin + stride j) of the network's input, counted without its margin: torchvision's convolutions
are padded alike on all sides, and the grid lies in the middle.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from msc_edge.ignore_mask import IgnoreMask
from msc_edge.preprocessing import Preprocessing, View

MAX_REGIONS = 32  # of one image, those with the highest peaks
_ROUNDING = 1e-6  # pixels


@dataclass(frozen=True, slots=True)
class AnomalousRegion:
    """A connected part of an image whose anomaly map is above the limit of the kit. In pixels of the image."""

    x: int
    y: int
    width: int
    height: int
    """The bounding box."""
    area: int
    peak: float
    """The largest value of the map in the region."""
    peak_x: int
    peak_y: int
    """Where the largest value is."""
    center_x: int
    center_y: int
    """The centroid, which may lie outside of a bent region."""


@dataclass(frozen=True)
class MapGeometry:
    """Where the positions of a grid of patches lie in a frame."""

    frame_height: int
    frame_width: int
    view: View
    """The part of the frame that the network sees."""
    input_height: int
    input_width: int
    """Of the network's input, or of its canvas with tiles, in pixels."""
    stride: int
    """Pixels of the network's input between two positions of the grid."""
    margin: int = 0
    """Pixels from the border of the network's input to the first position of the grid."""
    ignore: IgnoreMask | None = None

    @classmethod
    def of(cls, spec: Preprocessing, *, height: int, width: int, stride: int) -> "MapGeometry":
        """The geometry of a frame of this size."""
        view = spec.view(height=height, width=width)
        return cls(height, width, view, *spec.canvas, stride, spec.margin, spec.ignore)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the frame for one pixel of the network's input: down and across."""
        return self.view.height / self.input_height, self.view.width / self.input_width

    def ignored_at_frame(self, *, height: int, width: int) -> np.ndarray | None:
        """Which pixels of the frame, resized to this size, are ignored, bool (height, width); None without a mask."""
        if self.ignore is None:
            return None
        rows, columns = self.pixel_centres(height=height, width=width)
        down, across = self.scale
        inside = self.ignore.ignored[
            np.ix_(
                (rows / down).clip(0, self.input_height - 1).astype(int),
                (columns / across).clip(0, self.input_width - 1).astype(int),
            )
        ]
        return inside & self.sees(rows, columns)

    def pixel_centres(self, *, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The centres of the lines and columns of the frame resized to this size, in frame pixels from the view."""
        rows = (np.arange(height) + 0.5) * self.frame_height / height - self.view.top
        return rows, (np.arange(width) + 0.5) * self.frame_width / width - self.view.left

    def sees(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Whether the view contains each of these places (see `pixel_centres`), bool (rows, columns)."""
        inside = (rows >= 0) & (rows <= self.view.height)
        return inside[:, None] & (columns >= 0) & (columns <= self.view.width)


@dataclass(frozen=True)
class AnomalyMap:
    """The anomaly map of one image, on the grid of its patches, and the limit above which it has regions."""

    grid: np.ndarray
    """float32 (rows, columns)."""
    geometry: MapGeometry
    limit: float
    least_area: int
    """Of a region, in pixels of the network's input."""

    @property
    def peak(self) -> float:
        """The largest value: the patch score."""
        return float(self.grid.max())

    def at_input(self) -> np.ndarray:
        """The map at each pixel of the network's input, float32: the same largest value."""
        at = self.geometry
        return self._interpolated(np.arange(at.input_height), np.arange(at.input_width))

    def at_frame(self, *, height: int | None = None, width: int | None = None) -> np.ndarray:
        """The map at each pixel of the frame, float32 (height, width); 0 where the network sees nothing.

        With `height` and `width`, of the frame resized to that size.
        """
        at = self.geometry
        height, width = height or at.frame_height, width or at.frame_width
        rows, columns = at.pixel_centres(height=height, width=width)
        down, across = at.scale
        large = self._interpolated(rows / down - 0.5, columns / across - 0.5)
        large[~at.sees(rows, columns)] = 0
        return large

    def regions(self) -> tuple[AnomalousRegion, ...]:
        """The connected regions above the limit, of at least the least area, highest peak first."""
        if not self.peak > self.limit:
            return ()
        large = self.at_input()
        count, labels, statistics, centres = cv2.connectedComponentsWithStats((large > self.limit).astype(np.uint8))
        regions = [
            self._region(large, labels, label, statistics[label], centres[label])
            for label in range(1, count)
            if statistics[label, cv2.CC_STAT_AREA] >= self.least_area
        ]
        return tuple(sorted(regions, key=lambda region: -region.peak)[:MAX_REGIONS])

    def _interpolated(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The map at pixels of the network's input, bilinearly; outside of the grid it has the value of its border.

        Without matrix products: a BLAS would compute them in threads of its own, on cores that are not ours to use.
        """
        rows, columns = ((each - self.geometry.margin) / self.geometry.stride for each in (rows, columns))
        at_columns = _lines(self.grid.T, columns).T
        return _lines(np.ascontiguousarray(at_columns), rows)

    def _region(
        self, large: np.ndarray, labels: np.ndarray, label: int, statistics: np.ndarray, centre: np.ndarray
    ) -> AnomalousRegion:
        view, (down, across) = self.geometry.view, self.geometry.scale
        x, y, width, height, area = (int(each) for each in statistics)
        box = np.s_[y : y + height, x : x + width]
        values = np.where(labels[box] == label, large[box], -np.inf)
        row, column = np.unravel_index(values.argmax(), values.shape)
        peak_row, peak_column = y + row, x + column
        # The box contains every pixel that it touches; an end that rounding lifts above a whole number is that number.
        x_end, y_end = _up(view.left + (x + width) * across), _up(view.top + (y + height) * down)
        x, y = int(view.left + x * across + _ROUNDING), int(view.top + y * down + _ROUNDING)
        return AnomalousRegion(
            x=x,
            y=y,
            width=x_end - x,
            height=y_end - y,
            area=max(1, round(area * across * down)),
            peak=float(large[peak_row, peak_column]),
            peak_x=int(view.left + (peak_column + 0.5) * across),
            peak_y=int(view.top + (peak_row + 0.5) * down),
            center_x=int(view.left + (centre[0] + 0.5) * across),
            center_y=int(view.top + (centre[1] + 0.5) * down),
        )


def _up(pixels: float) -> int:
    return int(np.ceil(pixels - _ROUNDING))


def smoothed(patch_distances: np.ndarray, *, smoothing: float) -> np.ndarray:
    """The grid of an anomaly map from patch distances, float32 (rows, columns) both.

    `smoothing`: standard deviation of the blur in positions of the grid, 0 for none. The blur reaches three standard
    deviations, and repeats the border.
    """
    if smoothing == 0:
        return patch_distances
    size = _blur_size(smoothing)
    return cv2.GaussianBlur(patch_distances, (size, size), smoothing, borderType=cv2.BORDER_REPLICATE)


def blur_kernel(smoothing: float) -> np.ndarray:
    """The weights of the blur along one axis, float64 (odd number,), with the sum 1; see `smoothed`."""
    return cv2.getGaussianKernel(_blur_size(smoothing), smoothing, cv2.CV_64F).ravel()


def _blur_size(smoothing: float) -> int:
    return 2 * int(np.ceil(3 * smoothing)) + 1


def patch_score(patch_distances: np.ndarray, *, smoothing: float) -> float:
    """The patch score of an image: the largest value of its anomaly map. Arguments as for `smoothed`."""
    return float(smoothed(patch_distances, smoothing=smoothing).max())


def _lines(grid: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The lines of a grid, float32 (count, n), at fractional positions: float32 (positions, n)."""
    count = len(grid)
    positions = np.clip(positions, 0, count - 1)
    before = positions.astype(np.intp)
    share = (positions - before).astype(np.float32)
    steps = np.diff(grid, axis=0, append=grid[-1:]).take(before, axis=0)
    steps *= share[:, None]
    steps += grid.take(before, axis=0)
    return steps
