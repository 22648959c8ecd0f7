import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.frame import ProcessedFile
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.state import State

TIMEOUT = 30.0
MAX_IN_MEMORY = 10_000  # some hours of rejects


def event(message: str = "scratched") -> Event:
    return Event(id=new_id(), kind="reject", time=now(), station="line3", source="cam1", message=message)


def ids(state: State, channel: str = "mqtt") -> list[str]:
    return [each.id for each in state.waiting(channel, limit=1_000_000)]


@pytest.fixture
def disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of 4 MB."""
    return disk_of("4m")


@pytest.fixture
def state(disk: Path) -> Iterator[State]:
    with State.open(disk / "state", channels=["mqtt", "webhook"]) as state:
        yield state


def put_until_full(outbox: Outbox) -> list[Event]:
    """Put events until the disk takes no more; the last of them waits in memory."""
    put: list[Event] = []
    deadline = time.monotonic() + TIMEOUT
    while not outbox.is_full:
        assert time.monotonic() < deadline
        put.append(event("x" * 3000))
        outbox.put(put[-1:])
    return put


def test_events_are_recorded_for_each_channel_before_the_callback(tmp_path: Path) -> None:
    backlogs: list[dict[str, int]] = []
    events = [event() for _ in range(5)]
    with State.open(tmp_path, channels=["mqtt", "webhook"]) as state:
        outbox = Outbox(state, on_recorded=lambda: backlogs.append(state.backlog()))
        outbox.put(events[:2])
        outbox.put([])
        outbox.put(events[2:])
        assert ids(state, "mqtt") == ids(state, "webhook") == [each.id for each in events]
        assert outbox.backlog() == {"mqtt": 5, "webhook": 5}
    assert backlogs == [{"mqtt": 2, "webhook": 2}, {"mqtt": 5, "webhook": 5}]


def test_while_the_disk_is_full_events_wait_in_memory_and_are_then_recorded_in_order(
    disk: Path, state: State, caplog: pytest.LogCaptureFixture, fill: Callable[[Path], Path]
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    callbacks: list[int] = []
    outbox = Outbox(state, on_recorded=lambda: callbacks.append(len(ids(state))))
    events = [event() for _ in range(3)]
    outbox.put(events)
    ballast = fill(disk)
    events += put_until_full(outbox)
    on_disk, called = len(ids(state)), len(callbacks)
    assert on_disk < len(events)
    for _ in range(20):
        events.append(event())
        outbox.put(events[-1:])
        outbox.retry()
    assert outbox.backlog() == {"mqtt": len(events), "webhook": len(events)}, "those in memory count"
    assert len(ids(state)) == on_disk
    assert len(callbacks) == called, "no callback for an event that is not recorded"
    ballast.unlink()
    outbox.retry()
    assert ids(state, "mqtt") == ids(state, "webhook") == [each.id for each in events]
    assert callbacks[-1] == len(events)
    assert not outbox.is_full
    assert outbox.take_dropped() == 0
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO"], "the failure and the recovery are logged once"
    assert "free some space" in caplog.text


def test_a_new_event_is_recorded_together_with_those_in_memory(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    ballast = fill(disk)
    events = put_until_full(outbox)
    ballast.unlink()
    events.append(event())
    outbox.put(events[-1:])
    assert ids(state) == [each.id for each in events]


def test_too_many_in_memory_drop_the_oldest_and_count_them(
    disk_of: Callable[[str], Path], fill: Callable[[Path], Path]
) -> None:
    disk = disk_of("16m")
    with State.open(disk, channels=["mqtt"]) as state:
        outbox = Outbox(state)
        ballast = fill(disk)
        on_disk = put_until_full(outbox)
        on_disk, waiting = on_disk[:-1], on_disk[-1:]
        assert ids(state) == [each.id for each in on_disk]
        waiting += [event() for _ in range(MAX_IN_MEMORY + 49)]
        outbox.put(waiting[1:])
        assert outbox.take_dropped() == 50
        assert outbox.take_dropped() == 0
        ballast.unlink()
        outbox.retry()
        assert ids(state) == [each.id for each in on_disk + waiting[50:]]


def test_events_dropped_by_the_state_are_counted_once(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"], max_bytes=20_000) as state:
        outbox = Outbox(state)
        for _ in range(50):
            outbox.put([event("x" * 1000)])
        left = len(ids(state))
        assert 5 < left < 20
        assert outbox.take_dropped() == 50 - left
        assert outbox.take_dropped() == 0
        assert outbox.is_full, "at more than nine tenths events are about to be dropped"
        state.remove([each.number for each in state.waiting("mqtt", limit=5)])
        assert not outbox.is_full


def test_a_file_and_its_event_are_recorded_together_or_not_at_all(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    file = ProcessedFile(folder="parts", path=b"part \xff.png", size=1, modified=2)
    ballast = fill(disk)
    waiting = put_until_full(outbox)
    mine = event("x" * 3000)
    before = ids(state)
    assert not outbox.put_with([mine], file)
    assert ids(state) == before
    assert state.processed_files("parts") == {}
    ballast.unlink()
    assert outbox.put_with([mine], file)
    assert state.processed_files("parts") == {file.path: (1, 2)}
    assert not outbox.is_full
    outbox.retry()
    assert sorted(ids(state)) == sorted(each.id for each in [*waiting, mine])


def test_a_file_without_an_event_needs_no_callback(tmp_path: Path) -> None:
    callbacks: list[bool] = []
    file = ProcessedFile(folder="parts", path=b"part.png", size=1, modified=2)
    with State.open(tmp_path, channels=["mqtt"]) as state:
        outbox = Outbox(state, on_recorded=lambda: callbacks.append(True))
        assert outbox.put_with([], file)
        assert state.processed_files("parts") == {file.path: (1, 2)}
        assert callbacks == []
        assert outbox.put_with([event()], file)
        assert callbacks == [True]


def test_it_is_not_full_forever_after_old_events_could_not_be_dropped_on_a_full_disk(
    disk: Path, fill: Callable[[Path], Path]
) -> None:
    """/readyz depends on it. Dropping old events is a write too, which a full disk refuses; no new event comes."""
    with State.open(disk / "state", channels=["mqtt"], max_age=1e-3) as state:
        outbox = Outbox(state)
        outbox.put([event("x" * 3000) for _ in range(100)])
        ballast = fill(disk)
        outbox.take_dropped()
        ballast.unlink()
        outbox.retry()
        outbox.take_dropped()
        outbox.backlog()
        assert not outbox.is_full


def test_threads_may_put_while_the_disk_fills_and_empties(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    events_of: list[list[Event]] = [[] for _ in range(4)]

    def put(events: list[Event]) -> None:
        for _ in range(40):
            events.append(event("x" * 500))
            outbox.put(events[-1:])
            time.sleep(0.001)

    threads = [threading.Thread(target=put, args=(events,), daemon=True) for events in events_of]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        ballast = fill(disk)
        time.sleep(0.02)
        ballast.unlink()
        time.sleep(0.02)
    outbox.retry()
    found = ids(state)
    assert len(found) == len(set(found)) == 160
    for events in events_of:
        expected = [each.id for each in events]
        assert [each for each in found if each in set(expected)] == expected, "in order"
    assert outbox.take_dropped() == 0
