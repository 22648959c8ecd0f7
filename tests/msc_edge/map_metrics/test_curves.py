"""The integral of a piecewise linear curve: closed forms, and parts that add up."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.map_metrics.curves import mean_recall

few = settings(max_examples=15, deadline=None, derandomize=True)


def line(slope: float) -> tuple[np.ndarray, np.ndarray]:
    fpr = np.linspace(0, 1, 8)[None]
    return fpr, 0.2 + slope * fpr


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.3), (0.25, 0.26)])
def test_a_line_has_its_middle_as_mean(low: float, high: float) -> None:
    assert mean_recall(*line(0.6), low, high) == pytest.approx(0.2 + 0.6 * (low + high) / 2)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-4), (1e-5, 1), (0.25, 0.26)])
def test_a_line_over_the_logarithm(low: float, high: float) -> None:
    expected = 0.2 + 0.6 * (high - low) / math.log(high / low)
    assert mean_recall(*line(0.6), low, high, logarithmic=True) == pytest.approx(expected)


@pytest.mark.parametrize(("logarithmic", "share_before"), [(True, 1 / 2), (False, 9 / 99)])
def test_a_step_has_no_width(logarithmic: bool, share_before: float) -> None:
    fpr, recall = np.array([[0, 0.01, 0.01, 1]]), np.array([[0.6, 0.6, 1, 1]])
    mean = mean_recall(fpr, recall, 0.001, 0.1, logarithmic=logarithmic)
    assert mean == pytest.approx(0.6 * share_before + 1 - share_before)


@few
@given(seed=st.integers(0, 99), cut=st.integers(1, 18), logarithmic=st.booleans())
def test_the_parts_of_a_curve_add_up(seed: int, cut: int, logarithmic: bool) -> None:
    random = np.random.default_rng(seed)
    fpr, recall = np.sort(random.random((3, 20))), np.sort(random.random((3, 20)))
    parts = (fpr[:, : cut + 1], recall[:, : cut + 1]), (fpr[:, cut:], recall[:, cut:])
    sums = sum(mean_recall(*part, 0.1, 0.4, logarithmic=logarithmic) for part in parts)
    assert sums == pytest.approx(mean_recall(fpr, recall, 0.1, 0.4, logarithmic=logarithmic))
