"""A folder that another process fills, with the real process that scores it, killed and started again."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from msc_edge.images import DecodePolicy
from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.sources import folder as folder_source
from msc_edge.runtime.stream.sources import folder_listing
from msc_edge.runtime.stream.sources.folder import FolderSource
from msc_edge.runtime.stream.state import State

TIMEOUT = 60.0


def write_images(folder: Path, encoded: list[bytes], rate: float) -> None:
    """Write images as careless programs do: at once, by renaming, in two pieces; some are incomplete or empty."""
    choose = random.Random(0)
    started = time.monotonic()
    for number, data in enumerate(encoded):
        path = folder / f"shift {number % 3}" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        kind = number % 10
        if kind == 3:
            path.write_bytes(data[: len(data) // 2])
        elif kind == 5:
            path.write_bytes(b"")
        elif kind == 7:
            with path.open("wb") as file:
                file.write(data[:500])
                file.flush()
                time.sleep(0.03)
                file.write(data[500:])
        elif choose.random() < 0.5:
            partial = path.with_suffix(".tmp")
            partial.write_bytes(data)
            partial.rename(path)
        else:
            path.write_bytes(data)
        time.sleep(max(0.0, started + (number + 1) / rate - time.monotonic()))


@pytest.mark.slow
def test_each_file_is_scored_or_reported_once_although_the_process_is_killed(
    stream: Callable, in_process: Callable, until: Callable, rows_of: Callable, toy: Any, tmp_path: Path
) -> None:
    folder, count = tmp_path / "incoming ü", 300
    folder.mkdir()
    drawn = [toy.draw(number, None if number % 4 else "scratch") for number in range(40)]
    encoded = [cv2.imencode(".png", drawn[number % 40][..., ::-1])[1].tobytes() for number in range(count)]
    writer = multiprocessing.get_context("fork").Process(target=write_images, args=(folder, encoded, 50))
    writer.start()
    rows, hook = tmp_path / "rows.jsonl", "http://127.0.0.1:9/none"
    for killed_after in (30, 90, 150, 200):
        running = stream(folder, "--jsonl", rows, "--webhook", hook)
        until(lambda after=killed_after: len(rows_of(rows)) >= after, timeout=TIMEOUT)
        running.process.kill()
        running.process.wait()
    running = in_process(folder, results={"jsonl": str(rows)}, webhook={"url": hook})
    writer.join()
    until(lambda: len(rows_of(rows)) >= count, timeout=TIMEOUT)
    time.sleep(0.5)  # a file that is scored twice would come now
    assert running.stop()
    found = rows_of(rows)
    assert Counter(row["path"] for row in found).most_common(1)[0][1] == 1
    assert {Path(row["path"]).stem for row in found} == {f"{number:04d}" for number in range(count)}
    for row in found:
        unreadable = int(Path(row["path"]).stem) % 10 in (3, 5)
        assert (row["error"] is not None) == unreadable
        assert (row["score"] is None) == unreadable
    # The events of rejected images wait for the webhook, each of them once.
    with State.open(tmp_path / "state", channels=["webhook"]) as state:
        waiting = state.waiting("webhook", limit=10_000)
    assert len({each.id for each in waiting}) == len(waiting)
    errors = {row["id"]: row["path"] for row in found if row["error"] is not None}
    bodies = [json.loads(each.body) for each in waiting if each.kind == "unreadable"]
    assert {body["id"]: body["path"] for body in bodies} == errors
    assert all(body["path"] in body["message"] for body in bodies)
    rejected = {row["id"] for row in found if row["verdict"] == "reject"}
    assert rejected
    assert {json.loads(each.body)["id"] for each in waiting if each.kind == "reject"} == rejected


def test_existing_files_are_scored_and_a_changed_file_is_another_image(
    in_process: Callable, until: Callable, rows_of: Callable, toy: Any, save: Callable, tmp_path: Path
) -> None:
    folder, rows = tmp_path / "incoming", tmp_path / "rows.jsonl"
    path = save(folder / "part.png", toy.draw(1))
    (folder / "notes.txt").write_text("not an image")
    save(folder / ".hidden.png", toy.draw(2))
    running = in_process(folder, results={"jsonl": str(rows)})
    until(lambda: len(rows_of(rows)) == 1)
    save(path, toy.draw(3, "scratch"))
    until(lambda: len(rows_of(rows)) == 2)
    assert running.stop()
    one, other = rows_of(rows)
    assert one["path"] == other["path"] == str(path)
    assert one["id"] != other["id"]
    assert one["score"] != other["score"]


@pytest.mark.usefixtures("bound_by_permissions")
def test_lost_images_and_subfolders_that_cannot_be_listed_are_reported(
    in_process: Callable,
    until: Callable,
    rows_of: Callable,
    toy: Any,
    save: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folder_listing, "_RECOVERED_AFTER", 0.3)
    folder, rows = tmp_path / "in", tmp_path / "rows.jsonl"
    part = save(folder / "locked" / "part.png", toy.draw(1))
    lost = save(folder / "lost.bmp", toy.draw(2))
    part.parent.chmod(0)
    source = {"address": str(folder), "settle": 1.0}  # four seconds for a BMP file
    running = in_process(source=[source], results={"jsonl": str(rows)}, webhook={"url": "http://127.0.0.1:9/none"})
    event = running.wait_for("folder_incomplete")
    assert event["message"].endswith(
        ": in: locked: Permission denied: cannot be listed; images there are not inspected"
    )
    assert running.stream.not_ready()[0].startswith("source in: locked: Permission denied: cannot be listed")
    lost.unlink()
    (row,) = until(lambda: rows_of(rows))
    reason = "it was removed or moved away before it could be read"
    assert (row["path"], row["verdict"]) == (str(lost), None)
    assert row["error"] == f"{reason}; leave each image unchanged for longer than 4 s, or lower `settle`"
    event = running.wait_for("unreadable")
    assert (event["id"], event["path"]) == (row["id"], str(lost))
    save(folder / "scored.png", toy.draw(3))
    until(lambda: len(rows_of(rows)) == 2)
    assert len(running.entries("folder_incomplete")) == 1, "it is not repeated at each listing"
    part.parent.chmod(0o700)
    running.wait_for("folder_complete")
    until(lambda: len(rows_of(rows)) == 3)
    assert running.stream.not_ready() == []
    assert running.stop()
    assert b'msc_edge_unreadable_total{source="in"} 1.0' in running.stream._parts.metrics.as_text()
    assert {Path(row["path"]).name: row["error"] is None for row in rows_of(rows)} == {
        "lost.bmp": False,
        "scored.png": True,
        "part.png": True,
    }


class Reader:
    """The source alone, read step by step."""

    def __init__(self, folder: Path, state: State) -> None:
        self.events: list[str] = []
        self.source = FolderSource("in", folder, state=state, decode=DecodePolicy, settle=0.1)
        self.frames = self.source.frames(lambda kind, _message, _seconds: self.events.append(kind))
        self.state = state

    def read(self) -> Frame | None:
        """One step. A frame is recorded as processed."""
        frame = next(self.frames)
        if frame is not None:
            self.state.record([], file=frame.file)
        return frame

    def take(self, seconds: float) -> list[Frame]:
        """All frames of this time."""
        frames, deadline = [], time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (frame := self.read()) is not None:
                frames.append(frame)
        return frames


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state") as state:
        yield state


def test_a_growing_file_is_read_when_it_is_complete(state: State, toy: Any, save: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    complete = save(tmp_path / "elsewhere.png", toy.draw(1)).read_bytes()
    folder.mkdir()
    reader = Reader(folder, state)
    assert reader.take(0.1) == []
    with (folder / "a.png").open("wb") as file:
        for start in range(0, len(complete), 1 + len(complete) // 5):
            file.write(complete[start : start + 1 + len(complete) // 5])
            file.flush()
            assert reader.take(0.05) == []
    (frame,) = reader.take(0.8)
    assert frame.error is None
    assert frame.path == str(folder / "a.png")
    assert reader.take(0.3) == []


def test_a_file_that_ended_the_process_twice_is_reported_and_the_next_one_is_read(
    toy: Any, save: Callable, tmp_path: Path
) -> None:
    """As by a crash in a decoder, or by a watchdog."""
    folder = tmp_path / "in"
    for name in ("a.png", "b.png"):
        save(folder / name, toy.draw(1))
    code = """
import os, sys, signal
from pathlib import Path
from msc_edge.images import DecodePolicy
from msc_edge.runtime.stream.sources.folder import FolderSource
from msc_edge.runtime.stream.state import State
def crash():
    os.kill(os.getpid(), signal.SIGSEGV)
with State.open(Path(sys.argv[2])) as state:
    source = FolderSource("in", Path(sys.argv[1]), state=state, decode=crash, settle=0.01)
    for frame in source.frames(lambda *_: None):
        if frame is not None:
            print(Path(frame.path).name, frame.error, flush=True)
            state.record([], file=frame.file)
"""
    printed = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, folder, tmp_path / "state"], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGSEGV
        printed.append(done.stdout)
    assert printed == ["", "", "a.png the process ended 2 times while it worked on this file\n"]


def test_a_file_whose_scoring_ended_the_process_twice_is_reported_and_the_others_are_scored(
    toy: Any, toy_kit: Path, save: Callable, rows_of: Callable, tmp_path: Path
) -> None:
    """As by a crash in the backend, for want of memory, or by an internal error. Other files come first."""
    folder, rows = tmp_path / "in", tmp_path / "rows.jsonl"
    save(folder / "b.bmp", toy.draw(1)[:40])  # it kills; of this format a file must be unchanged for longer
    code = """
import signal, sys
from pathlib import Path
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.service import Stream
from msc_edge.runtime.stream.sinks.recorder import Recorder
run, save_image = Detector.run, Recorder.save_image
def crash(self, image):
    if image.shape[0] == 40:
        if sys.argv[5] == "error":
            raise ZeroDivisionError
        signal.raise_signal(signal.SIGSEGV)
    return run(self, image)
def stop(self, decision, wait):
    if decision.frame.path.endswith(".bmp"):
        stream.stop()
    return save_image(self, decision, wait=wait)
Detector.run, Recorder.save_image = crash, stop
kit, folder, rows, state = sys.argv[1:5]
source = {"address": folder, "settle": 0.05}
options = {"kit": kit, "source": [source], "results": {"jsonl": rows}, "state": state, "threads": 1}
stream = Stream(check_config(options))
sys.exit(0 if stream.run() else 70)
"""
    arguments = [sys.executable, "-c", code, toy_kit, folder, rows, tmp_path / "state"]
    for number, end in enumerate(("crash", "error", "")):
        save(folder / f"{number}.png", toy.draw(number))
        done = subprocess.run([*arguments, end], capture_output=True, text=True, check=False)
        assert done.returncode == {"crash": -signal.SIGSEGV, "error": 70, "": 0}[end], done.stderr
    found = {Path(row["path"]).name: row["error"] for row in rows_of(rows)}
    assert found.pop("b.bmp") == "the process ended 2 times while it worked on this file"
    assert found == {"0.png": None, "1.png": None, "2.png": None}


def test_half_a_file_with_an_old_date_is_not_complete(state: State, toy: Any, save: Callable, tmp_path: Path) -> None:
    """As a file server with a wrong clock writes it."""
    complete = save(tmp_path / "elsewhere.png", toy.draw(1)).read_bytes()
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    reader = Reader(tmp_path / "in", state)
    for part in (complete[: len(complete) // 2], complete):
        path.write_bytes(part)
        os.utime(path, (time.time() - 60, time.time() - 60))
        frames = reader.take(0.4)
    assert [frame.error for frame in frames] == [None]
    assert reader.take(0.3) == []


def test_a_backlog_does_not_delay_the_next_listing(state: State, toy: Any, save: Callable, tmp_path: Path) -> None:
    """The pause between two listings depends on the time of a listing, not of scoring."""
    folder = tmp_path / "in"
    for number in range(4):
        save(folder / f"{number}.png", toy.draw(number))
    reader = Reader(folder, state)
    pauses: list[float] = []
    reader.source._closed.wait = lambda timeout=None: pauses.append(timeout or 0.0) or time.sleep(0.01) or False
    count = 0
    while count < 4 or not pauses:
        if reader.read() is not None:
            time.sleep(0.3)  # a slow model
            count += 1
    pauses.clear()
    assert reader.read() is None
    assert reader.read() is None
    assert 0 < max(pauses) < 1, "not four times the time of scoring"


def test_a_folder_that_vanishes_is_lost_and_no_file_is_scored_twice_when_it_is_back(
    state: State, toy: Any, save: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "share"
    save(folder / "a.png", toy.draw(1))
    reader = Reader(folder, state)
    assert len(reader.take(0.4)) == 1
    folder.rename(tmp_path / "unmounted")
    assert reader.take(0.1) == []
    folder.mkdir()  # an empty mount point
    assert reader.take(0.2) == []
    folder.rmdir()
    (tmp_path / "unmounted").rename(folder)
    save(folder / "b.png", toy.draw(2))
    assert [Path(frame.path or "").name for frame in reader.take(2.0)] == ["b.png"]
    assert reader.events[:3] == ["source_up", "source_lost", "source_up"]


@pytest.mark.usefixtures("bound_by_permissions")
def test_files_of_a_subfolder_that_cannot_be_listed_are_not_forgotten(
    state: State, toy: Any, save: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all of them would be scored again when it can be listed again."""
    monkeypatch.setattr(folder_source, "_FORGET_INTERVAL", 0.0)
    locked = save(tmp_path / "in" / "locked" / "a.png", toy.draw(1)).parent
    removed = save(tmp_path / "in" / "b.png", toy.draw(2))
    save(tmp_path / "in" / "c.png", toy.draw(3))
    reader = Reader(tmp_path / "in", state)
    assert len(reader.take(0.5)) == 3
    locked.chmod(0)
    removed.unlink()
    assert reader.take(0.2) == []
    locked.chmod(0o700)
    assert set(state.processed_files(str(tmp_path / "in"))) == {b"locked/a.png", b"c.png"}
    assert reader.take(0.3) == []


def test_a_file_with_a_date_that_the_state_cannot_hold_is_scored_once(
    in_process: Callable, until: Callable, rows_of: Callable, toy: Any, save: Callable, tmp_path: Path
) -> None:
    """After the year 2262: cameras without a clock, and damaged file systems, have such dates."""
    folder, rows = tmp_path / "incoming", tmp_path / "rows.jsonl"
    seconds = 1 << 34  # in the year 2514
    path = save(folder / "part.png", toy.draw(1))
    os.utime(path, (seconds, seconds))
    for count in (1, 2):
        running = in_process(folder, results={"jsonl": str(rows)})
        until(lambda count=count: len(rows_of(rows)) == count)
        assert running.stop()
        save(folder / "later.png", toy.draw(2))
    assert [Path(row["path"]).name for row in rows_of(rows)] == ["part.png", "later.png"]


def test_a_file_replaced_under_the_same_name_size_and_date_is_another_image_and_a_touched_one_is_not(
    in_process: Callable, until: Callable, rows_of: Callable, toy: Any, tmp_path: Path
) -> None:
    folder, rows = tmp_path / "incoming", tmp_path / "rows.jsonl"
    folder.mkdir()
    path = folder / "part.bmp"

    def write(number: int, place: Path) -> None:
        encoded = cv2.imencode(".bmp", toy.draw(number, "scratch"))[1].tobytes()  # of one size, whatever the image
        place.write_bytes(encoded)
        os.utime(place, ns=(10**18, 10**18))

    write(1, path)
    running = in_process(folder, results={"jsonl": str(rows)})
    until(lambda: len(rows_of(rows)) == 1)
    write(2, path)  # as `cp -p` does: the same inode
    until(lambda: len(rows_of(rows)) == 2)
    write(3, folder / "part.tmp")
    (folder / "part.tmp").rename(path)  # another inode
    until(lambda: len(rows_of(rows)) == 3)
    path.chmod(0o600)  # another ctime, and the same content
    write(4, folder / "later.bmp")
    until(lambda: len(rows_of(rows)) == 4)
    assert running.stop()
    path.chmod(0o640)
    shutil.copy2(path, folder / "part.tmp")
    (folder / "part.tmp").rename(path)
    running = in_process(folder, results={"jsonl": str(rows)})
    write(5, folder / "latest.bmp")
    until(lambda: len(rows_of(rows)) == 5)
    write(6, path)
    until(lambda: len(rows_of(rows)) == 6)
    assert running.stop()
    found = rows_of(rows)
    assert [Path(row["path"]).name for row in found] == ["part.bmp"] * 3 + ["later.bmp", "latest.bmp", "part.bmp"]
    assert len({row["id"] for row in found}) == 6
    assert len({row["score"] for row in found}) == 6
