"""Real processes: started, cancelled, killed, resumed."""

import os
import signal
import time
from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.studio.interruption import why_interrupted
from msc_edge.studio.jobs import Job, TaskProgress


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "job")


def ended(job: Job) -> str:
    deadline = time.monotonic() + 120
    while job.state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return job.state


@pytest.mark.slow
def test_work_that_fails_says_why_and_can_be_resumed(job, tmp_path):
    assert job.state == "not started"
    job.start("check", normal=str(tmp_path / "missing"), test=None)
    assert job.state == "running"
    with pytest.raises(UsageError, match="running already"):
        job.start("check", normal="x", test=None)
    assert ended(job) == "failed"
    assert "missing" in job.error
    assert "Traceback" not in job.error
    assert job.result is None
    job.resume()
    assert (job.state, job.error) == ("running", "")
    job.cancel()
    assert job.state == "cancelled"
    assert job.request == {"task": "check", "normal": str(tmp_path / "missing"), "test": None}


def test_a_killed_process_leaves_interrupted_work(job, tmp_path):
    job.start("check", normal=str(tmp_path), test=None)
    process = job.folder / "process.txt"
    while not process.is_file():
        pass
    os.kill(int(process.read_text()), getattr(signal, "SIGKILL", signal.SIGTERM))
    assert ended(job) == "interrupted"
    assert job.progress == []
    assert job.interruption.startswith("its process was killed. The system does this when memory runs out: close other")
    assert Job(tmp_path / "other").interruption.startswith("its process ended before the work was done")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "ended before the work was done"),
        (-signal.SIGTERM, "was asked to stop"),
        (0, "was asked to stop"),
        (-11, "crashed (signal 11)"),
        (3, "crashed (exit code 3)"),
    ],
)
def test_the_end_of_a_process_is_said_in_words(code, words):
    assert words in why_interrupted(code)


def test_cancelled_work_is_not_interrupted_work(job, tmp_path):
    job.start("check", normal=str(tmp_path), test=None)
    job.cancel()
    assert job.state == "cancelled"
    with pytest.raises(UsageError, match="nothing to resume"):
        Job(tmp_path / "other").resume()


def test_another_process_sees_the_state_by_the_lock(job):
    """As after a restart of the server: this process has not started the work."""
    job.folder.mkdir()
    (job.folder / "request.json").write_text("{}")
    with job.work() as ours:
        assert ours
        assert job.state == "running"
    assert job.state == "interrupted"


def test_progress_and_result_are_what_was_written(job):
    job.folder.mkdir()
    tasks = [TaskProgress("reading", 3, 7, "", 1.5, 2.0), TaskProgress("fine-tuning", 1, 80, "loss 3.1", 0.2, None)]
    job.write_progress(tasks)
    (job.folder / "request.json").write_text('{"task": "check"}')
    assert job.progress == tasks
    job.finish({"a": [1, 2]})
    assert (job.state, job.result) == ("done", {"a": [1, 2]})
