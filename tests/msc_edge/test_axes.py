import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.axes import HEIGHT, WIDTH, Axes, ticks


class TestTicks:
    @settings(deadline=None)
    @given(low=st.floats(-1, 2), span=st.floats(1e-6, 3), most=st.integers(3, 10))
    def test_they_are_few_round_and_within_the_axis(self, low, span, most):
        found = ticks(low, low + span, most=most)
        assert 1 <= len(found) <= most + 1
        step = float(f"{span / most:.0e}")
        for value, label in found:
            assert low - 1e-6 * span <= value <= low + span * (1 + 1e-6)
            assert re.fullmatch(r"-?\d+(\.\d+)?", label)
            assert float(label) == pytest.approx(value, abs=1e-3 * step)
            assert not re.fullmatch(r"-0(\.0*)?", label)
        assert len({label for _, label in found}) == len(found)
        # At equal distances of 1, 2 or 5 times a power of ten.
        steps = {f"{right - left:.3e}" for (left, _), (right, _) in itertools.pairwise(found)}
        assert len(steps) <= 1
        assert all(re.match(r"[125]\.000e", each) for each in steps)

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
            (0, 100, ["0", "20", "40", "60", "80", "100"]),
            (0.003, 0.041, ["0.01", "0.02", "0.03", "0.04"]),
            (-0.011, 0.01, ["-0.010", "-0.005", "0.000", "0.005", "0.010"]),
        ],
    )
    def test_examples(self, low, high, expected):
        assert [label for _, label in ticks(low, high, most=5)] == expected


def test_positions_increase_from_left_to_right_and_from_bottom_to_top():
    axes = Axes((0, 2), (0, 1))
    assert 0 < axes.x(0) < axes.x(1) < axes.x(2) < WIDTH
    assert 0 < axes.y(1) < axes.y(0.5) < axes.y(0) < HEIGHT
    assert axes.x(1) == (axes.x(0) + axes.x(2)) / 2
