"""The loop of one source, with a source, a journal and files that the test controls."""

import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from msc_edge.runtime.stream.active_kit import ActiveKits, KitOptions, KitUse, load_kits
from msc_edge.runtime.stream.alarm import Debounce
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.config_sections import AlarmConfig, LimitsConfig, MofN
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Frame, ProcessedFile
from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sinks.recorder import Recorder
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.statistics import Statistics
from msc_edge.runtime.stream.worker import Worker

TIMEOUT = 30.0


class Frames:
    """A source that yields given frames; an exception among them is raised."""

    name = "cam"
    is_live = False
    outage = None
    partial_outage = ""

    def __init__(self, frames: Iterable[Frame | Exception | None]) -> None:
        self._frames = frames
        self.closed = False

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        on_event("source_up", "frames arrive", None)
        for frame in self._frames:
            if isinstance(frame, Exception):
                raise frame
            yield frame

    def scored(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def frame(image: np.ndarray | None, index: int = 0, **fields: Any) -> Frame:
    return Frame(source="cam", index=index, time=now(), captured=0.0, image=image, **fields)


def file(name: bytes) -> ProcessedFile:
    return ProcessedFile(folder="in", path=name, size=1, modified=2)


class Bench:
    """What the workers of a stream share, in a folder, with rows in `rows.jsonl`."""

    def __init__(self, folder: Path, kit: Path) -> None:
        self.state = State.open(folder / "state", channels=["webhook"])
        use = KitUse(kit, LimitsConfig())
        self.kits = ActiveKits(load_kits({"cam": use}, KitOptions(threads=1)))
        self.statistics, self.metrics = Statistics(), Metrics()
        self.rows = folder / "rows.jsonl"
        config = check_config({"kit": "k", "source": [{"address": "0"}], "results": {"jsonl": str(self.rows)}})
        self.recorder = Recorder(config)
        self.journal = EventJournal(
            Outbox(self.state),
            station="line3",
            kits=self.kits,
            statistics=self.statistics,
            metrics=self.metrics,
        )

    def worker(self, *frames: Frame | Exception | None) -> Worker:
        return Worker(
            Frames(frames),
            kits=self.kits,
            debounce=Debounce(AlarmConfig()),
            recorder=self.recorder,
            journal=self.journal,
            statistics=self.statistics,
            metrics=self.metrics,
        )

    def run(self, *frames: Frame | Exception | None) -> Worker:
        """Run a worker in this thread to the end of its source."""
        worker = self.worker(*frames)
        worker.run()
        return worker

    def events(self) -> list[tuple[str, str]]:
        """(kind, id) of the events in the outbox."""
        return [(each.kind, each.id) for each in self.state.waiting("webhook", limit=1000)]


@pytest.fixture
def bench_in(toy_kit: Path) -> Any:
    benches: list[Bench] = []

    def make(folder: Path) -> Bench:
        benches.append(Bench(folder, toy_kit))
        return benches[-1]

    yield make
    for bench in benches:
        bench.recorder.close()
        bench.state.close()


@pytest.fixture
def bench(bench_in: Callable[[Path], Bench], tmp_path: Path) -> Bench:
    return bench_in(tmp_path)


def test_a_frame_becomes_a_row_an_event_and_a_count(bench: Bench, toy: ModuleType, rows_of: Callable) -> None:
    bench.run(frame(toy.draw(200, "scratch")), None, frame(toy.draw(100), index=1, dropped=3))
    rejected, normal = rows_of(bench.rows)
    assert (rejected["verdict"], normal["verdict"]) == ("reject", "normal")
    assert [kind for kind, _ in bench.events()] == ["source_up", "reject"]
    assert bench.events()[1] == ("reject", rejected["id"])
    assert bench.statistics.verdicts == {"reject": 1, "normal": 1}
    assert (bench.statistics.frames, bench.statistics.dropped) == (2, 3)
    assert b'msc_edge_frames_total{source="cam",verdict="reject"} 1.0' in bench.metrics.as_text()


def test_suppressed_rejects_are_reported_when_the_cooldown_and_the_source_end(bench: Bench, toy: ModuleType) -> None:
    """No further reject may come that would count them."""
    image, moment = toy.draw(200, "scratch"), time.monotonic()
    ages = (60, 55, 40, 0, 0, 0)  # seconds; the second one is in the cooldown of the first one
    frames = [replace(frame(image, index), captured=moment - age) for index, age in enumerate(ages)]
    worker = bench.worker(*frames)
    worker.debounce.rule = AlarmConfig(cooldown=10)
    worker.run()
    events = [json.loads(each.body) for each in bench.state.waiting("webhook", limit=1000)]
    found = [(event["kind"], event["frame"], event["suppressed"], event["count"]) for event in events]
    assert found == [
        ("source_up", None, None, None),
        ("reject", 0, 0, None),
        ("rejects_suppressed", None, None, 1),
        ("reject", 2, 0, None),
        ("reject", 3, 0, None),
        ("rejects_suppressed", None, None, 2),
    ]
    assert events[2]["message"].startswith("cam: 1 reject since 2")
    assert 55 <= events[2]["seconds"] < 55 + TIMEOUT


def test_a_reject_that_the_alarm_waits_with_is_in_the_log_and_in_a_row(
    bench: Bench, toy: ModuleType, rows_of: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    worker = bench.worker(*(frame(toy.draw(200, "scratch"), index) for index in range(3)))
    worker.debounce.rule = AlarmConfig(after=MofN(m=3, n=5))
    worker.run()
    rows = rows_of(bench.rows)
    assert [row["verdict"] for row in rows] == ["reject"] * 3
    logged = [record for record in caplog.records if "rejected" in record.getMessage()]
    assert [record.getMessage().partition("; ")[2] for record in logged] == [
        "no `reject` event yet: 1 of 3 rejects among the last 5 frames",
        "no `reject` event yet: 2 of 3 rejects among the last 5 frames",
        "2 rejects before it raised no event",
    ]
    assert logged[0].getMessage().startswith(f"cam: rejected, score {rows[0]['score']:.6f}, limit ")
    fields = getattr(logged[1], "fields", {})
    assert {name: fields[name] for name in ("frame", "verdict", "rejects", "after")} == {
        "frame": 1,
        "verdict": "reject",
        "rejects": 2,
        "after": "3-of-5",
    }
    assert [kind for kind, _ in bench.events()] == ["source_up", "reject"]


@pytest.mark.parametrize("failure", [MemoryError(), None])
def test_a_frame_that_cannot_be_scored_has_an_error_and_no_verdict(
    bench: Bench,
    toy: ModuleType,
    rows_of: Callable,
    failure: Exception | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    wrong = frame(np.zeros((0, 64, 3), np.uint8))
    if failure is not None:
        wrong = frame(toy.draw(100))
        run = type(bench.kits.detector("cam")).run

        def fail_once(*_: Any, **__: Any) -> None:
            monkeypatch.setattr(type(bench.kits.detector("cam")), "run", run)
            raise failure

        monkeypatch.setattr(type(bench.kits.detector("cam")), "run", fail_once)
    bench.run(wrong, frame(toy.draw(100), index=1))
    row, next_row = rows_of(bench.rows)
    assert row["verdict"] is None
    assert row["error"] == (
        "not enough memory to score it" if failure else "the image is empty: 64x0 pixels; check what cut or read it"
    )
    assert next_row["error"] is None
    messages = [record.getMessage() for record in caplog.records]
    assert f"cam: a frame cannot be scored: {row['error']}" in messages
    assert "cam: frames are scored again" in messages
    assert bench.statistics.unreadable == 1


def test_the_same_error_is_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.run(*(frame(np.zeros((0, 64, 3), np.uint8), index) for index in range(5)))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert bench.statistics.unreadable == 5


def test_a_processed_file_is_recorded_with_its_event(bench: Bench, toy: ModuleType, rows_of: Callable) -> None:
    bench.run(
        frame(toy.draw(200, "scratch"), id="one", file=file(b"one.png")),
        frame(None, error="truncated", id="two", path="two.png", file=file(b"two.png")),
    )
    assert [(row["id"], row["error"]) for row in rows_of(bench.rows)] == [("one", None), ("two", "truncated")]
    assert bench.events()[1:] == [("reject", "one"), ("unreadable", "two")]
    assert set(bench.state.processed_files("in")) == {b"one.png", b"two.png"}


def test_a_file_whose_row_was_written_before_a_crash_gets_no_second_row(
    bench: Bench, toy: ModuleType, rows_of: Callable
) -> None:
    for _ in range(2):
        bench.run(frame(toy.draw(200, "scratch"), id="one", file=file(b"one.png")))
    assert [row["id"] for row in rows_of(bench.rows)] == ["one"]
    assert [id for kind, id in bench.events() if kind == "reject"] == ["one"]


def test_after_a_crash_the_event_of_a_file_says_what_its_row_says(
    bench_in: Callable[[Path], Bench], toy: ModuleType, rows_of: Callable, tmp_path: Path
) -> None:
    """The kit, or its limits, may be others than those that gave the row."""
    crashed = bench_in(tmp_path)
    decision = crashed.worker()._score(frame(toy.draw(200, "scratch"), id="one", file=file(b"one.png")))
    assert crashed.recorder.write(decision, durable=True)  # the row is written; the mark and the event are not
    crashed.recorder.close()
    crashed.state.close()
    again = bench_in(tmp_path)
    again.kits.activate({"cam": again.kits.detector("cam").with_limits(threshold=1.9)})
    again.run(frame(toy.draw(200, "scratch"), id="one", file=file(b"one.png")))
    (row,) = rows_of(again.rows)
    (event,) = [json.loads(each.body) for each in again.state.waiting("webhook", limit=9) if each.kind == "reject"]
    assert {name: event[name] for name in ("id", "verdict", "score", "limit", "kit")} == {
        name: row[name] for name in ("id", "verdict", "score", "limit", "kit")
    }
    assert set(again.state.processed_files("in")) == {b"one.png"}


def test_a_file_whose_row_waits_for_a_full_disk_is_marked_with_its_row(
    bench_in: Callable[[Path], Bench],
    small_disk: Path,
    fill: Callable[[Path], Path],
    toy: ModuleType,
    rows_of: Callable,
) -> None:
    bench = bench_in(small_disk)
    ballast = fill(small_disk)
    one = frame(toy.draw(200, "scratch"), id="one", file=file(b"one.png"))
    bench.run(one, frame(toy.draw(200, "scratch"), index=1))
    assert (bench.statistics.frames, bench.recorder.waiting) == (2, 2)
    ballast.unlink()
    bench.run()
    assert "one" in {id for kind, id in bench.events() if kind == "reject"}, "the alarm does not wait for the row"
    assert bench.state.processed_files("in") == {}, "after a crash it is scored again"
    bench.recorder.retry()
    assert [row["frame"] for row in rows_of(bench.rows)] == [0, 1]
    assert set(bench.state.processed_files("in")) == {b"one.png"}


def test_an_internal_error_ends_the_worker_and_is_kept(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    error = ZeroDivisionError("the cause")
    worker = bench.run(None, error)
    assert worker.failure is error
    assert "cam: internal error" in caplog.text
    assert "the cause" in caplog.text


def test_closing_closes_the_source(bench: Bench) -> None:
    stop = threading.Event()

    def frames() -> Generator[None, None, None]:
        while not stop.wait(0.01):
            yield None

    worker = bench.worker()
    worker.source = source = Frames(frames())
    worker.start()
    worker.close()
    assert source.closed
    stop.set()
    worker.join(TIMEOUT)
    assert not worker.is_alive()
