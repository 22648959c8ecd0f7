"""At a rate, and by lines of a pipe."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.training_images.timing import LineTrigger, Rate


def frame(captured: float) -> Frame:
    return Frame("cam", 0, datetime.now(UTC), captured, np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("every", "settling", "due"),
    [
        (1.0, False, [0.0, 1.0, 2.0, 3.0]),
        (1.0, True, [2.0, 3.0]),
        (0.5, False, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]),
        (0.0, False, [i / 4 for i in range(14)]),
        (10.0, False, [0.0]),
    ],
)
def test_one_frame_in_each_interval(every: float, settling: bool, due: list[float]) -> None:
    rate = Rate(every, settling=settling)
    moments = [i / 4 for i in range(14)]
    assert [moment for moment in moments if rate.is_due(frame(moment), moment)] == due
    assert not rate.has_ended


def test_a_frame_after_a_long_gap_is_due_once() -> None:
    rate = Rate(1.0, settling=False)
    assert [rate.is_due(frame(moment), moment) for moment in (0.0, 60.0, 60.1, 61.0)] == [True, True, False, True]


def test_frames_without_times_are_all_due() -> None:
    rate = Rate(5.0, settling=False)
    assert all(rate.is_due(frame(0), None) for _ in range(3))


def test_each_line_takes_the_first_frame_after_it(until: Callable) -> None:
    reader, writer = os.pipe()
    trigger = LineTrigger(reader)
    before = time.monotonic()
    os.write(writer, b"\nany text\nwithout its end")
    # The time of a line is that of reading it: a frame of the far future comes after it, one of the past never.
    until(lambda: trigger.is_due(frame(before + 1000), None), "the first line")
    assert not trigger.is_due(frame(before), None)
    until(lambda: trigger.is_due(frame(before + 1000), None), "the second line")
    assert not trigger.is_due(frame(before + 1000), None)
    assert not trigger.has_ended
    os.write(writer, b"\n")
    os.close(writer)
    until(trigger._closed.is_set, "the end of the pipe")
    assert not trigger.has_ended  # one line is not used yet
    assert trigger.is_due(frame(before + 1000), None)
    assert trigger.has_ended
    os.close(reader)
