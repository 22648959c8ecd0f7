import io
import queue
import re
import sys

import pytest

from msc_edge import progress
from msc_edge.progress import ProgressLines, TaskTimes, progress_bars, progress_lines, silent


def test_silent_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent("scoring", 1, 2, "3 images/s")
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_are_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as report:
        report("scoring", 1, 2, "3 images/s")
    assert capsys.readouterr().out == ""
    assert "scoring" not in capsys.readouterr().err


def test_a_terminal_shows_one_bar_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars() as report:
        for done in range(3):
            report("scoring", done, 2, "3 images/s")
        report("writing", 1, 5)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    scoring, writing = [line for line in re.split(r"[\r\n]+", shown) if line.strip()][-2:]
    assert scoring.startswith("scoring")
    assert "2/2" in scoring
    assert "3 images/s" in scoring
    assert writing.startswith("writing")
    assert "1/5" in writing


def lines_of(*tasks: tuple[str, int, float]) -> list[str]:
    """The lines of these tasks, one after the other: name, units, seconds for each unit."""
    written: list[str] = []
    seconds = 0.0
    report = ProgressLines(written.append, now=lambda: seconds)
    for name, units, each in tasks:
        for done in range(units + 1):
            seconds += each if done else 0
            report(name, done, units, f"loss {done}")
    return written


def test_without_a_terminal_a_long_task_writes_a_line_soon_each_minute_and_at_its_end() -> None:
    assert lines_of(("fine-tuning", 20, 15)) == [
        "fine-tuning: 1 of 20, 0:15 elapsed, about 4:45 left, loss 1",
        "fine-tuning: 5 of 20, 1:15 elapsed, about 3:45 left, loss 5",
        "fine-tuning: 9 of 20, 2:15 elapsed, about 2:45 left, loss 9",
        "fine-tuning: 13 of 20, 3:15 elapsed, about 1:45 left, loss 13",
        "fine-tuning: 17 of 20, 4:15 elapsed, about 0:45 left, loss 17",
        "fine-tuning: 20 of 20, 5:00 elapsed, loss 20",
    ]


def test_without_a_terminal_a_task_of_less_than_five_seconds_writes_nothing() -> None:
    assert lines_of(("reading", 40, 0.1), ("scoring", 4, 1)) == []


def test_a_task_of_one_unit_writes_its_end() -> None:
    assert lines_of(("exporting the model", 1, 12)) == ["exporting the model: 1 of 1, 0:12 elapsed, loss 1"]


def test_a_unit_that_takes_long_is_no_silence() -> None:
    written: list[str] = []
    seconds = 0.0
    report = ProgressLines(written.append, now=lambda: seconds)
    report("fine-tuning", 0, 3)
    report("evaluating", 0, 2)
    report("evaluating", 2, 2)
    while seconds < 130:
        seconds += 1
        report.tick()
    report("fine-tuning", 3, 3)
    while seconds < 300:
        seconds += 1
        report.tick()
    assert written == [
        "fine-tuning: 0 of 3, 0:05 elapsed",
        "fine-tuning: 0 of 3, 1:05 elapsed",
        "fine-tuning: 0 of 3, 2:05 elapsed",
        "fine-tuning: 3 of 3, 2:10 elapsed",
    ]


def test_lines_are_written_while_a_task_does_not_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FIRST", 0.01)
    monkeypatch.setattr(progress, "_TICK", 0.01)
    written: queue.SimpleQueue[str] = queue.SimpleQueue()
    with progress_lines(written.put) as report:
        report("exporting the model", 0, 1)
        assert written.get(timeout=60).startswith("exporting the model: 0 of 1, 0:")


def test_a_task_that_is_repeated_writes_one_first_line_and_lines_of_minutes() -> None:
    assert lines_of(*[("evaluating", 3, 4)] * 10, ("evaluating", 3, 25)) == [
        "evaluating: 2 of 3, 0:08 elapsed, about 0:04 left, loss 2",
        "evaluating: 3 of 3, 0:12 elapsed, loss 3",
        "evaluating: 3 of 3, 1:15 elapsed, loss 3",
    ]


def test_hours_have_minutes_and_seconds_of_two_digits() -> None:
    written: list[str] = []
    times = iter([0.0, 0.0, 3605.4])
    report = ProgressLines(written.append, now=lambda: next(times))
    report("scoring", 0, 3)
    report("scoring", 1, 3)
    assert written == ["scoring: 1 of 3, 1:00:05 elapsed, about 2:00:11 left"]


def test_the_time_left_is_that_of_equal_units() -> None:
    times = TaskTimes()
    assert times.at(0, "reading", 0, 100) == (0, None)
    assert times.at(10, "reading", 5, 100) == (10, 190)
    assert times.at(20, "reading", 50, 100) == (20, 20)
    assert times.at(30, "reading", 100, 100) == (30, None)


def test_a_task_that_begins_again_is_not_timed_from_its_first_start() -> None:
    """Such as the embedding of the same images after each epoch, and of fewer images after more."""
    times = TaskTimes()
    times.at(0, "embedding", 0, 10_000)
    times.at(100, "embedding", 10_000, 10_000)
    assert times.at(1000, "embedding", 0, 500) == (0, None)
    assert times.at(1010, "embedding", 100, 500) == (10, 40)


def test_a_resumed_task_is_timed_by_what_it_did_now() -> None:
    times = TaskTimes()
    times.at(0, "fine-tuning", 60, 80)
    assert times.at(10, "fine-tuning", 70, 80) == (10, 10)
