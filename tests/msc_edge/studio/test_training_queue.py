"""Trainings that wait for each other, by their files: other processes, as after a killed server, see the same queue."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.studio.training import Training
from msc_edge.studio.training_queue import TrainingQueue
from msc_edge.studio.workspace import Workspace

TIMEOUT = 120  # seconds


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[TrainingQueue]:
    """A queue; what runs at the end is stopped."""
    queue = TrainingQueue(Workspace.at(tmp_path / "work"))
    yield queue
    for job in queue.workspace.jobs():
        job.stop()


@pytest.fixture
def trainings(queue, tmp_path) -> list[Training]:
    """Four trainings of two projects, in the order of the clicks."""
    (images := tmp_path / "images").mkdir()
    projects = [queue.workspace.create(name) for name in ("b", "a")]
    for project in projects:
        project.change(normal=str(images))
    return [project.new_training(detail="fast", steps=0) for project in (*projects, *projects)]


@pytest.fixture
def _no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work fails as soon as it imports torch, which would take the processes of these tests seconds each."""
    (absent := tmp_path / "absent").mkdir()
    (absent / "torch.py").write_text("raise ModuleNotFoundError(name='torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(absent), prepend=os.pathsep)


def submit(queue: TrainingQueue, training: Training) -> None:
    """Work that fails: there is no such folder."""
    queue.submit(training.job, "check", normal=str(training.folder / "none"), test=None)


def wait_for(training: Training, state: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while training.job.state != state:
        assert time.monotonic() < deadline, training.job.state
        time.sleep(0.05)


def states(trainings: list[Training]) -> list[str]:
    return [training.job.state for training in trainings]


def test_one_works_and_the_others_wait_in_the_order_of_the_clicks(queue, trainings):
    first, *others = trainings
    first.job.folder.mkdir()
    (first.job.folder / "request.json").write_text("{}")
    with first.job.work():  # as its process does
        for training in others:
            submit(queue, training)
        assert states(trainings) == ["running", "queued", "queued", "queued"]
        again = TrainingQueue(Workspace.at(queue.workspace.folder))
        assert again.waiting() == others
        assert again.before(others[1]) == [first, others[0]]
        assert again.before(first) == [first]
        with pytest.raises(UsageError, match="queued already; wait for it, or cancel it"):
            submit(queue, others[0])
        queue.advance()
        assert states(trainings) == ["running", "queued", "queued", "queued"]
    queue.advance()
    assert states(trainings) == ["interrupted", "running", "queued", "queued"]


def test_work_that_waits_can_be_cancelled_and_joins_the_end_when_it_is_resumed(queue, trainings):
    first, second, third, _ = trainings
    first.job.folder.mkdir()
    (first.job.folder / "request.json").write_text("{}")
    with first.job.work():
        submit(queue, second)
        submit(queue, third)
        queue.cancel(second.job)
        assert (second.job.state, queue.waiting()) == ("cancelled", [third])
        queue.resume(second.job)
        assert queue.waiting() == [third, second]
        assert second.job.request["task"] == "check"


@pytest.mark.slow
@pytest.mark.usefixtures("_no_torch")
def test_work_starts_at_once_where_none_runs_and_by_itself_where_it_has_waited(queue, trainings):
    with queue.kept_moving():
        for training in trainings[:3]:
            submit(queue, training)
        assert trainings[0].job.state == "running"
        assert queue.waiting() == trainings[1:3]
        for training in trainings[:3]:  # they end, and fail
            wait_for(training, "failed")
        started = [(training.job.folder / "process.txt").stat().st_mtime_ns for training in trainings[:3]]
        ended = [(training.job.folder / "error.txt").stat().st_mtime_ns for training in trainings[:3]]
        assert started[0] < ended[0] < started[1] < ended[1] < started[2]


@pytest.mark.slow
@pytest.mark.usefixtures("_no_torch")
def test_interrupted_work_goes_on_before_work_that_waits(queue, trainings):
    first, second, third, _ = trainings
    for training in (first, third):
        training.job.folder.mkdir()
        (training.job.folder / "request.json").write_text('{"task": "check", "normal": "/none", "test": null}')
    with first.job.work(), third.job.work():
        submit(queue, second)
    with queue.kept_moving():
        for training in (first, second, third):
            wait_for(training, "failed")
    started = [(each.job.folder / "process.txt").stat().st_mtime_ns for each in (second, first, third)]
    assert started[0] == max(started)


def test_work_that_cannot_be_started_says_so_and_the_next_one_has_its_turn(queue, trainings):
    first, second, third, _ = trainings
    first.job.folder.mkdir()
    (first.job.folder / "request.json").write_text("{}")
    with first.job.work():
        submit(queue, second)
        submit(queue, third)
    (second.job.folder / "log.txt").mkdir()  # where the process writes
    queue.advance()
    assert states([second, third]) == ["failed", "running"]
    assert "log.txt" in second.job.error or str(second.job.folder) in second.job.error
