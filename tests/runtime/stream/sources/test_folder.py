"""A folder that another process fills, with the real process that scores it, killed and started again."""

import json
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from msc_edge.images import DecodePolicy
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.sources.folder import FolderSource
from msc_edge.runtime.stream.state import State

PATIENCE = 60.0


def until(condition: Callable[[], Any], *, timeout: float = PATIENCE) -> Any:
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if "\n" in line]


def fill(folder: Path, toy_draw: Callable, count: int, rate: float) -> None:
    """Write images as careless software does: at once, renamed into place, in pieces with pauses; and rubbish."""
    choose = random.Random(0)
    begun = time.monotonic()
    for number in range(count):
        path = folder / f"shift {number % 3}" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        data = cv2.imencode(".png", toy_draw(number, None if number % 4 else "scratch")[..., ::-1])[1].tobytes()
        kind = number % 10
        if kind == 3:
            path.write_bytes(data[: len(data) // 2])  # and never more
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
        time.sleep(max(0.0, begun + (number + 1) / rate - time.monotonic()))


def test_each_file_is_scored_or_reported_once_also_when_the_process_is_killed(
    stream: Callable, toy: Any, tmp_path: Path
) -> None:
    folder, count = tmp_path / "incoming ü", 300
    folder.mkdir()
    writer = multiprocessing.get_context("fork").Process(target=fill, args=(folder, toy.draw, count, 50))
    writer.start()
    rows = tmp_path / "rows.jsonl"
    arguments = (folder, "--jsonl", rows, "--webhook", "http://127.0.0.1:9/nobody")
    for killed_after in (30, 90, 150, 200):
        running = stream(*arguments)
        until(lambda after=killed_after: len(rows_of(rows)) >= after)
        running.process.kill()
        running.process.wait()
    running = stream(*arguments)
    writer.join()
    until(lambda: len(rows_of(rows)) >= count)
    time.sleep(1)
    assert running.stop() == 0
    found = rows_of(rows)
    assert Counter(row["path"] for row in found).most_common(1)[0][1] == 1
    assert {Path(row["path"]).stem for row in found} == {f"{number:04d}" for number in range(count)}
    for row in found:
        broken = int(Path(row["path"]).stem) % 10 in (3, 5)
        assert (row["error"] is not None) == broken
        assert (row["score"] is None) == broken
    # The events of the rejected ones wait for the webhook: each once, none forgotten.
    with State.open(tmp_path / "state", channels=["webhook"]) as state:
        waiting = state.waiting("webhook", most=10_000)
        assert len({each.id for each in waiting}) == len(waiting)
        rejected = {row["id"] for row in found if row["verdict"] == "reject"}
        assert rejected
        assert {
            json.loads(each.body)["id"] for each in waiting if json.loads(each.body)["kind"] == "reject"
        } == rejected


def test_what_was_there_before_it_came_is_scored_and_a_changed_file_is_another_image(
    stream: Callable, toy: Any, save: Callable, tmp_path: Path
) -> None:
    folder, rows = tmp_path / "incoming", tmp_path / "rows.jsonl"
    path = save(folder / "part.png", toy.draw(1))
    (folder / "notes.txt").write_text("no image")
    save(folder / ".hidden.png", toy.draw(2))
    running = stream(folder, "--jsonl", rows)
    until(lambda: len(rows_of(rows)) == 1)
    save(path, toy.draw(3, "scratch"))
    until(lambda: len(rows_of(rows)) == 2)
    assert running.stop() == 0
    one, other = rows_of(rows)
    assert one["path"] == other["path"] == str(path)
    assert one["id"] != other["id"]
    assert one["score"] != other["score"]


def test_while_the_disk_is_full_files_wait_and_none_is_lost(
    stream: Callable, toy: Any, save: Callable, small_disk: Path, fill: Callable, tmp_path: Path
) -> None:
    folder, rows = tmp_path / "incoming", small_disk / "rows.jsonl"
    folder.mkdir()
    running = stream(folder, "--jsonl", rows)
    running.wait_for("source_up")
    ballast = fill(small_disk)
    for number in range(5):
        save(folder / f"{number}.png", toy.draw(number))
    until(lambda: any("cannot write" in entry["message"] for entry in running.entries()))
    assert rows_of(rows) == []
    assert running.process.poll() is None
    ballast.unlink()
    until(lambda: len(rows_of(rows)) == 5)
    assert len({row["path"] for row in rows_of(rows)}) == 5
    assert running.stop() == 0


class Reader:
    """The source by itself, with time in our hands."""

    def __init__(self, folder: Path, state: State) -> None:
        self.source = FolderSource("in", folder, state=state, decode=DecodePolicy, settle=0.2)
        self.events: list[str] = []
        self.frames = self.source.frames(lambda kind, _words, _seconds: self.events.append(kind))
        self.state = state

    def take(self, seconds: float) -> list[Frame]:
        """All frames of so many seconds, each recorded as done."""
        taken, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            frame = next(self.frames)
            if frame is not None:
                taken.append(frame)
                done = self.source.done(Decision(frame.id or "", frame, None, None))
                self.state.record([], done=done)
        return taken


@pytest.fixture
def state(tmp_path: Path) -> Any:
    with State.open(tmp_path / "state") as state:
        yield state


def test_a_file_that_grows_is_left_alone_until_it_is_whole(
    state: State, toy: Any, save: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    whole = save(tmp_path / "elsewhere.png", toy.draw(1)).read_bytes()
    folder.mkdir()
    reader = Reader(folder, state)
    assert reader.take(0.1) == []
    with (folder / "a.png").open("wb") as file:
        for start in range(0, len(whole), 1 + len(whole) // 8):
            file.write(whole[start : start + 1 + len(whole) // 8])
            file.flush()
            assert reader.take(0.1) == []
    (frame,) = reader.take(1.5)
    assert frame.error is None
    assert frame.path == str(folder / "a.png")
    assert reader.take(0.3) == []


def test_half_a_file_with_an_old_date_is_not_whole(state: State, toy: Any, save: Callable, tmp_path: Path) -> None:
    """As a file server writes it whose clock is behind."""
    whole = save(tmp_path / "elsewhere.png", toy.draw(1)).read_bytes()
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    reader = Reader(tmp_path / "in", state)
    for part in (whole[: len(whole) // 2], whole):
        path.write_bytes(part)
        os.utime(path, (time.time() - 60, time.time() - 60))
        frames = reader.take(0.5)
    assert [frame.error for frame in frames] == [None]
    assert reader.take(0.5) == []


def test_what_comes_during_a_backlog_is_not_left_waiting_for_as_long(
    state: State, toy: Any, save: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for number in range(8):
        save(folder / f"old {number}.png", toy.draw(number))
    reader = Reader(folder, state)
    taken: list[str] = []
    end = time.monotonic() + PATIENCE
    while len(taken) < 8:
        frame = next(reader.frames)
        assert time.monotonic() < end
        if frame is not None:
            time.sleep(0.3)  # a slow model
            taken.append(Path(frame.path or "").name)
            state.record([], done=reader.source.done(Decision(frame.id or "", frame, None, None)))
    save(folder / "new.png", toy.draw(99))
    begun = time.monotonic()
    until(lambda: next(reader.frames) is not None)
    assert time.monotonic() - begun < 4 * 8 * 0.3, "four times as long as the backlog took"


def test_a_folder_that_vanishes_is_told_and_nothing_is_scored_twice_when_it_is_back(
    state: State, toy: Any, save: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "share"
    save(folder / "a.png", toy.draw(1))
    reader = Reader(folder, state)
    assert len(reader.take(0.6)) == 1
    folder.rename(tmp_path / "unplugged")
    assert reader.take(1.2) == []
    folder.mkdir()  # an empty mount point
    assert reader.take(0.3) == []
    folder.rmdir()
    (tmp_path / "unplugged").rename(folder)
    save(folder / "b.png", toy.draw(2))
    assert [Path(frame.path or "").name for frame in reader.take(2.0)] == ["b.png"]
    assert reader.events[:3] == ["source_up", "source_lost", "source_up"]
    shutil.rmtree(folder)
