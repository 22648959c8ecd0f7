import io
import re
import sys

import pytest

from msc_edge.progress import progress_bars, silent


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
