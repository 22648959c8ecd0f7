"""Alive means scored: a source whose frames arrive and cannot be scored is reported."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from msc_edge.kit.opening import KitIdentity
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.active_kit import ActiveKits
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.scoring_watch import ScoringWatch
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.statistics import Statistics

DETECTOR: Any = SimpleNamespace(kit=KitIdentity("bottles", "a" * 64), path=Path("bottles"), model="fp32")
RESULT = Result(0.5, 0.5, None, 0.01, "normal", 0.2, (), (NearestImage(0, "n.png", 0.5),), "fp32", "a" * 64)


class Bench:
    """A source, a clock that the test sets, and the events."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("msc_edge.runtime.stream.statistics.time.monotonic", lambda: self.now)
        self.state = State.open(folder, channels=["mqtt"])
        self.statistics, self.metrics = Statistics(), Metrics()
        self.journal = EventJournal(
            Outbox(self.state),
            station="line3",
            kits=ActiveKits({"cam": DETECTOR}),
            statistics=self.statistics,
            metrics=self.metrics,
        )
        self.watch = ScoringWatch(self.statistics, self.journal, clock=lambda: self.now)
        self.journal.report("source_up", "frames arrive", source="cam")

    def frame(self, error: str | None = None, *, seconds: float = 1.0) -> None:
        self.now += seconds
        one = Frame(source="cam", index=0, time=now(), captured=self.now, image=None, error=error)
        scored = error is None
        self.statistics.add_decision(
            Decision("id", one, RESULT if scored else None, Stages(1, 1, 1, 1) if scored else None)
        )
        self.watch.look("cam", 20)

    def kinds(self) -> list[str]:
        return [each.kind for each in self.state.waiting("mqtt", limit=100)][1:]

    def is_up(self) -> bool:
        return b'msc_edge_source_up{source="cam"} 1.0' in self.metrics.as_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    bench.state.close()


def test_frames_that_cannot_be_scored_are_reported_once_and_their_end_too(bench: Bench) -> None:
    for _ in range(15):
        bench.frame("too small")
    assert bench.kinds() == []
    assert bench.watch.not_ready("cam") is None
    for _ in range(30):
        bench.frame("too small")
    assert bench.kinds() == ["not_scored"]
    assert not bench.is_up()
    assert bench.watch.not_ready("cam") == "no frame could be scored for 44 s: too small"
    bench.frame()
    assert bench.kinds() == ["not_scored", "source_up"]
    assert bench.is_up()
    assert bench.watch.not_ready("cam") is None
    last = json.loads(bench.state.waiting("mqtt", limit=100)[-1].body)
    assert (last["message"], last["seconds"]) == ("cam: frames are scored again", 45)


def test_single_frames_that_cannot_be_scored_are_no_state(bench: Bench) -> None:
    for _ in range(40):
        bench.frame("damaged")
        bench.frame()
    bench.frame("damaged", seconds=100)
    for _ in range(5):
        bench.now += 100
        bench.watch.look("cam", 20)
    assert bench.kinds() == []


def test_a_source_that_is_lost_meanwhile_and_comes_back_is_reported_again(bench: Bench) -> None:
    for _ in range(30):
        bench.frame("too small")
    bench.journal.report("source_lost", "unplugged", source="cam")
    bench.now += 100
    bench.watch.look("cam", 20)
    bench.journal.report("source_up", "frames arrive", source="cam")
    for _ in range(10):
        bench.frame("too small")
    assert bench.kinds() == ["not_scored", "source_lost", "source_up"]
    for _ in range(20):
        bench.frame("too small")
    assert bench.kinds() == ["not_scored", "source_lost", "source_up", "not_scored"]


def test_zero_never_reports(bench: Bench) -> None:
    for _ in range(100):
        bench.now += 1
        bench.statistics.add_decision(Decision("id", Frame("cam", 0, now(), 0.0, None, error="too small"), None, None))
        bench.watch.look("cam", 0)
    assert bench.kinds() == []


def test_a_stream_whose_frames_do_not_fit_says_so_by_event_metric_and_readiness(
    in_process: Callable, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for number in range(4):
        save(folder / f"{number}.png", toy.draw(number))
    source = {"address": str(folder), "roi": "0,0,5000,5000", "not_scored_after": 0.5}
    running = in_process(source=[source])
    event = running.wait_for("not_scored")
    assert "roi of the source does not fit" in event["message"]
    (reason,) = running.stream.not_ready()
    assert reason.startswith("source in: no frame could be scored for ")
    assert running.stop()
