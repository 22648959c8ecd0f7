import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msc_edge.kit.opening import KitIdentity
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.active_kit import ActiveKits
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Decision, Frame, ProcessedFile, Stages
from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.statistics import Statistics

ACTIVE, SCORED = "a" * 64, "5" * 64
DETECTOR: Any = SimpleNamespace(kit=KitIdentity("bottles", ACTIVE), path=Path("bottles"), model="fp32")


class Parts:
    """A journal and what it writes to."""

    def __init__(self, folder: Path) -> None:
        self.state = State.open(folder, channels=["mqtt"])
        self.statistics, self.metrics = Statistics(), Metrics()
        self.journal = EventJournal(
            Outbox(self.state),
            station="line3",
            kits=ActiveKits({"cam": DETECTOR, "cam2": DETECTOR}),
            statistics=self.statistics,
            metrics=self.metrics,
        )

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(each.body) for each in self.state.waiting("mqtt", limit=100)]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path)
    yield parts
    parts.state.close()


def decision() -> Decision:
    frame = Frame(source="cam", index=7, time=now(), captured=0.0, image=None, path="a.png")
    result = Result(0.5, 0.5, None, 0.01, "reject", 0.2, (), (NearestImage(0, "n.png", 0.5),), "fp32", SCORED)
    return Decision("an-id", frame, result, Stages(1, 2, 3, 6))


def test_an_event_is_logged_counted_and_put_into_the_outbox(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    parts.journal.report("source_up", "frames arrive", source="cam", seconds=2.5)
    (event,) = parts.events()
    assert (event["kind"], event["station"], event["source"], event["seconds"]) == ("source_up", "line3", "cam", 2.5)
    assert event["message"] == "cam: frames arrive"
    assert event["kit"] == ACTIVE
    assert parts.statistics.events == {"source_up": 1}
    assert b'msc_edge_source_up{source="cam"} 1.0' in parts.metrics.as_text()
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "source_up: cam: frames arrive")
    assert record.__dict__["fields"]["id"] == event["id"]


@pytest.mark.parametrize(
    ("kind", "level"),
    [("source_lost", "WARNING"), ("source_frozen", "WARNING"), ("kit_refused", "ERROR"), ("results_lost", "ERROR")],
)
def test_events_that_need_attention_have_a_higher_level(
    parts: Parts, caplog: pytest.LogCaptureFixture, kind: Any, level: str
) -> None:
    parts.journal.report(kind, "a message")
    assert [record.levelname for record in caplog.records] == [level]


def test_a_rejection_names_the_kit_that_scored_the_frame(parts: Parts) -> None:
    event = parts.journal.rejection(decision(), Path("saved/a.jpg"))
    assert parts.events() == []
    parts.journal.record(event)
    (recorded,) = parts.events()
    assert (recorded["id"], recorded["kit"], recorded["image"]) == ("an-id", SCORED, "saved/a.jpg")
    assert (recorded["frame"], recorded["path"], recorded["nearest"]) == (7, "a.png", "n.png")
    assert (recorded["score"], recorded["limit"], recorded["model"]) == (0.5, 0.2, "fp32")


@pytest.mark.parametrize("rejected", [True, False])
def test_a_file_is_recorded_with_its_event_if_it_has_one(
    parts: Parts, caplog: pytest.LogCaptureFixture, rejected: bool
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    event = parts.journal.rejection(decision(), None) if rejected else None
    parts.journal.record_file(ProcessedFile("in", b"a.png", 1, 2), event)
    assert parts.state.processed_files("in") == {b"a.png": ProcessedFile("in", b"a.png", 1, 2)}
    assert [each["id"] for each in parts.events()] == (["an-id"] if rejected else [])
    assert parts.statistics.events == ({"reject": 1} if rejected else {})
    assert len(caplog.records) == int(rejected)
