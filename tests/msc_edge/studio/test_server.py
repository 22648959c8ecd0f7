"""A server that is killed while it trains, and started again."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WORK = 600  # seconds for a training on a busy machine


def test_a_killed_studio_goes_on_and_a_cancelled_training_does_not(start_studio, parts, tmp_path):
    first = start_studio(tmp_path / "work")
    assert first.post("/projects", name="caps")[0] == 303
    first.post("/projects/caps/images", which="normal", folder=str(parts / "train" / "good"))
    first.post("/projects/caps/trainings", detail="fast", steps="400")
    folder = first.folder / "caps" / "trainings" / "1"
    _wait_for(lambda: _steps(folder) >= 2)
    worker = int((folder / "job" / "process.txt").read_text())
    first.kill(signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)  # as after a power cut
    done = _steps(folder)

    second = start_studio(tmp_path / "work")
    _wait_for(lambda: _steps(folder) > done and int((folder / "job" / "process.txt").read_text()) != worker)
    again = int((folder / "job" / "process.txt").read_text())
    assert second.post("/projects/caps/trainings", detail="fast")[0] == 400  # one training at a time
    assert second.post("/projects/caps/trainings/1/cancel")[0] == 303
    assert "Cancelled" in second.get("/projects/caps/trainings/1")[1]
    assert second.post("/projects/caps/trainings/1/resume")[0] == 303
    _wait_for(lambda: int((folder / "job" / "process.txt").read_text()) not in (worker, again))
    resumed = int((folder / "job" / "process.txt").read_text())
    second.kill(signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        os.kill(resumed, 0)  # a studio that is stopped stops its work


def _steps(folder: Path) -> int:
    metrics = folder / "run" / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.is_file() else 0


def _wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WORK
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
