"""Histograms of maps: the order and the width of the bins, and their sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.map_metrics.histograms import dense, image_histograms, lower_edges, occupied_bins

few = settings(max_examples=25, deadline=None, derandomize=True)
floats = st.floats(0, width=32, allow_nan=False, allow_infinity=False)


def histograms_of(*values: float) -> np.ndarray:
    """The bins of some values, highest first."""
    return occupied_bins([image_histograms(np.array([values], dtype=np.float32), None)])


@few
@given(floats)
def test_a_value_lies_in_its_bin(value: float) -> None:
    bins = histograms_of(value)
    low, high = (float(each) for each in lower_edges(np.array([bins[0], bins[0] + 1], dtype=np.int32)))
    assert low <= value < high
    assert high == np.inf or high - low <= max(low * 2**-10, 2.0**-136)


@few
@given(floats, floats)
def test_the_order_of_bins_is_the_order_of_values(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert histograms_of(low)[0] <= histograms_of(high)[0]


@pytest.mark.parametrize(("values", "bins"), [((1, 1.0009), 1), ((1, 1.001), 2), ((0, -0.0), 1), ((0, 1e-30), 2)])
def test_resolution(values: tuple[float, ...], bins: int) -> None:
    assert len(histograms_of(*values)) == bins


def test_the_sums_of_an_image() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[0, :2] = mask[2:, 4:] = True  # regions of 2 and of 4 pixels
    anomaly_map = np.ones((4, 6), dtype=np.float32)
    anomaly_map[0, 0] = anomaly_map[3, 5] = anomaly_map[3, 0] = 8
    image = image_histograms(anomaly_map, mask)
    bins = occupied_bins([image])
    assert lower_edges(bins).tolist() == [8, 1]
    assert dense([image.normal, image.anomalous, image.overlap], bins).tolist() == [[1, 17], [2, 4], [0.75, 1.25]]
    assert (image.normal_pixels, image.anomalous_pixels, image.regions) == (18, 6, 2)


@few
@given(st.integers(0, 99), st.integers(1, 50))
def test_chunks_of_bins_are_parts_of_the_matrix(seed: int, width: int) -> None:
    random = np.random.default_rng(seed)
    images = [image_histograms(random.gamma(1, 1, (7, 9)).astype(np.float32), None) for _ in range(3)]
    histograms = [image.normal for image in images]
    bins = occupied_bins(images)
    whole = dense(histograms, bins)
    parts = [dense(histograms, bins[start : start + width]) for start in range(0, len(bins), width)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert whole.sum(axis=1).tolist() == [63, 63, 63]
