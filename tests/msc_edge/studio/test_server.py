"""A server that is killed while it trains, and started again."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WORK = 600  # seconds for a training on a busy machine


def test_a_killed_studio_goes_on_with_its_queue_and_a_cancelled_training_does_not(start_studio, parts, tmp_path):
    (good := tmp_path / "good").mkdir()
    for path in (parts / "train" / "good").glob("plate*"):
        shutil.copy(path, good)
    first = start_studio(tmp_path / "work")
    assert first.post("/projects", name="caps")[0] == 303
    first.post("/projects/caps/images", which="normal", folder=str(good))
    for number, steps in ((1, "400"), (2, "0"), (3, "0")):
        place = f"/projects/caps/trainings/{number}"
        assert first.post("/projects/caps/trainings", detail="fast", steps=steps) == (303, place)
    assert "Before this one" not in first.get("/projects/caps/trainings/1")[1]
    folder, second_folder, third_folder = (first.folder / "caps" / "trainings" / str(number) for number in (1, 2, 3))
    _wait_for(lambda: _steps(folder) >= 2)
    worker = _process(folder)
    first.kill(signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)  # as after a power cut
    done = _steps(folder)

    second = start_studio(tmp_path / "work")
    _wait_for(lambda: _steps(folder) > done and _process(folder) != worker)
    again = _process(folder)
    page = second.get("/projects/caps/trainings/3")[1]
    assert re.findall(r">(caps, training \d)</a> \((\w+)\)", page) == [
        ("caps, training 1", "running"),
        ("caps, training 2", "queued"),
    ]
    assert second.post("/projects/caps/trainings/3/cancel")[0] == 303
    assert "Cancelled" in second.get("/projects/caps/trainings/3")[1]
    assert second.post("/projects/caps/trainings/1/cancel")[0] == 303
    assert "Cancelled" in second.get("/projects/caps/trainings/1")[1]
    _wait_for((second_folder / "job" / "process.txt").is_file)  # its turn
    assert second.post("/projects/caps/trainings/1/resume")[0] == 303
    _wait_for(lambda: _process(folder) not in (worker, again))  # after the second
    assert (second_folder / "kit" / "manifest.json").is_file()
    assert not (third_folder / "job" / "process.txt").exists()
    resumed = _process(folder)
    second.kill(signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        os.kill(resumed, 0)  # a studio that is stopped stops its work


def _process(folder: Path) -> int:
    return int((folder / "job" / "process.txt").read_text())


def _steps(folder: Path) -> int:
    metrics = folder / "run" / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.is_file() else 0


def _wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WORK
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
