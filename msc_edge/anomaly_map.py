"""The anomaly map: how much each part of an image differs from normal images, and the regions where it is too much.

The model gives patch distances on a grid. The map is this grid after a Gaussian blur, so that one noisy patch is no
defect; the patch score of an image is the largest value of its map. Position (i, j) of the grid lies on pixel
(stride i, stride j) of the network's input: torchvision's convolutions are padded alike on all sides.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from msc_edge.preprocessing import View

MAX_REGIONS = 32  # of one image, those with the highest peaks


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

    view: View
    """The part of the frame that the network sees."""
    input_height: int
    input_width: int
    """Of the network's input, in pixels."""
    stride: int
    """Pixels of the network's input between two positions of the grid."""

    def at_input(self, anomaly_map: np.ndarray) -> np.ndarray:
        """A map, float32 (rows, columns), interpolated at each pixel of the network's input: the same maximum."""
        return _interpolated(
            anomaly_map, np.arange(self.input_height) / self.stride, np.arange(self.input_width) / self.stride
        )

    def at_frame(self, anomaly_map: np.ndarray, *, height: int, width: int) -> np.ndarray:
        """A map, float32 (rows, columns), at each pixel of the frame; 0 where the network sees nothing."""
        left, top, wide, high = self.view
        across, down = np.arange(width) + 0.5 - left, np.arange(height) + 0.5 - top  # centres of the pixels
        large = _interpolated(
            anomaly_map,
            (down * self.input_height / high - 0.5) / self.stride,
            (across * self.input_width / wide - 0.5) / self.stride,
        )
        large[(down < 0) | (down > high)] = 0
        large[:, (across < 0) | (across > wide)] = 0
        return large

    def regions(self, anomaly_map: np.ndarray, *, limit: float, least_area: int) -> tuple[AnomalousRegion, ...]:
        """The connected regions above `limit`, of at least `least_area` pixels of the input, highest peak first."""
        if not anomaly_map.max() > limit:
            return ()
        large = self.at_input(anomaly_map)
        count, labels, statistics, centres = cv2.connectedComponentsWithStats((large > limit).astype(np.uint8))
        regions = [
            self._region(large, labels == label, statistics[label], centres[label])
            for label in range(1, count)
            if statistics[label, cv2.CC_STAT_AREA] >= least_area
        ]
        return tuple(sorted(regions, key=lambda region: -region.peak)[:MAX_REGIONS])

    def _region(
        self, large: np.ndarray, inside: np.ndarray, statistics: np.ndarray, centre: np.ndarray
    ) -> AnomalousRegion:
        left, top, wide, high = self.view
        across, down = wide / self.input_width, high / self.input_height  # pixels of the frame per pixel of the input
        x, y, width, height, area = (int(each) for each in statistics)
        # The box contains every pixel that it touches.
        x_end, y_end = int(np.ceil(left + (x + width) * across)), int(np.ceil(top + (y + height) * down))
        x, y = int(left + x * across), int(top + y * down)
        peak_row, peak_column = np.unravel_index(np.where(inside, large, -np.inf).argmax(), large.shape)
        return AnomalousRegion(
            x=x,
            y=y,
            width=x_end - x,
            height=y_end - y,
            area=max(1, round(area * across * down)),
            peak=float(large[peak_row, peak_column]),
            peak_x=int(left + (peak_column + 0.5) * across),
            peak_y=int(top + (peak_row + 0.5) * down),
            center_x=int(left + (centre[0] + 0.5) * across),
            center_y=int(top + (centre[1] + 0.5) * down),
        )


def anomaly_map_of(patch_distances: np.ndarray, *, smoothing: float) -> np.ndarray:
    """The anomaly map of patch distances, float32 (rows, columns) both.

    `smoothing`: standard deviation of the blur in positions of the grid, 0 for none. The blur reaches three standard
    deviations, and repeats the border.
    """
    if smoothing == 0:
        return patch_distances
    size = 2 * int(np.ceil(3 * smoothing)) + 1
    return cv2.GaussianBlur(patch_distances, (size, size), smoothing, borderType=cv2.BORDER_REPLICATE)


def _interpolated(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A grid at fractional positions, bilinearly; positions outside of it have the value of the border."""
    return (_weights(rows, grid.shape[0]) @ grid @ _weights(columns, grid.shape[1]).T).astype(np.float32)


def _weights(positions: np.ndarray, count: int) -> np.ndarray:
    """The matrix (positions, count) of linear interpolation."""
    positions = np.clip(positions, 0, count - 1)
    before = np.minimum(positions.astype(int), max(count - 2, 0))
    after = np.minimum(before + 1, count - 1)
    weights = np.zeros((len(positions), count))
    places = np.arange(len(positions))
    np.add.at(weights, (places, before), 1 - (positions - before))
    np.add.at(weights, (places, after), positions - before)
    return weights
