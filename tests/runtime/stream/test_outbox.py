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
    while not outbox.unwritten():
        assert time.monotonic() < deadline
        put.append(event("x" * 3000))
        outbox.put(put[-1:])
    return put


def waiting(outbox: Outbox, channel: str = "mqtt") -> list[str]:
    return [each.id for each in outbox.waiting(channel, limit=1_000_000)]


def test_events_are_recorded_for_each_channel_before_the_callback(tmp_path: Path) -> None:
    backlogs: list[dict[str, int]] = []
    events = [event() for _ in range(5)]
    with State.open(tmp_path, channels=["mqtt", "webhook"]) as state:
        outbox = Outbox(state, on_added=lambda: backlogs.append(state.backlog()))
        outbox.put(events[:2])
        outbox.put([])
        outbox.put(events[2:])
        assert ids(state, "mqtt") == ids(state, "webhook") == [each.id for each in events]
        assert waiting(outbox, "mqtt") == waiting(outbox, "webhook") == [each.id for each in events]
        assert outbox.backlog() == {"mqtt": 5, "webhook": 5}
        assert outbox.unwritten() == {}
    assert backlogs == [{"mqtt": 2, "webhook": 2}, {"mqtt": 5, "webhook": 5}]


def test_while_the_disk_is_full_events_can_be_delivered_from_memory_and_are_later_written_in_order(
    disk: Path, state: State, caplog: pytest.LogCaptureFixture, fill: Callable[[Path], Path]
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    added: list[int] = []
    outbox = Outbox(state, on_added=lambda: added.append(len(waiting(outbox))))
    events = [event() for _ in range(3)]
    outbox.put(events)
    ballast = fill(disk)
    events += put_until_full(outbox)
    on_disk = len(ids(state))
    for _ in range(20):
        events.append(event())
        outbox.put(events[-1:])
        outbox.retry()
    assert len(ids(state)) == on_disk < len(events)
    assert outbox.unwritten() == {"reject": len(events) - on_disk}
    assert waiting(outbox, "mqtt") == waiting(outbox, "webhook") == [each.id for each in events]
    assert outbox.backlog() == {"mqtt": len(events), "webhook": len(events)}
    assert added[-1] == len(events)
    numbers = [each.number for each in outbox.waiting("mqtt", limit=1_000_000)]
    assert len(set(numbers)) == len(numbers)

    delivered = [each.id for each in events[-10:]]
    outbox.remove("mqtt", delivered)
    assert waiting(outbox, "mqtt") == [each.id for each in events[:-10]]
    assert outbox.backlog() == {"mqtt": len(events) - 10, "webhook": len(events)}

    ballast.unlink()
    outbox.retry()
    assert ids(state, "mqtt") == [each.id for each in events[:-10]]
    assert ids(state, "webhook") == [each.id for each in events]
    assert outbox.unwritten() == {}
    assert not outbox.is_full
    assert outbox.take_dropped() == 0
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO"], "the failure and the recovery are logged once"
    assert "free some space" in caplog.text


def test_what_was_acknowledged_is_not_delivered_again_though_the_full_disk_cannot_remove_it(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    events = [event() for _ in range(40)]
    outbox.put(events)
    ballast = fill(disk)
    put_until_full(outbox)
    first = [each.id for each in events[:10]]
    outbox.remove("mqtt", first)
    assert not set(first) & set(waiting(outbox))
    assert set(first) <= set(waiting(outbox, "webhook"))
    outbox.postpone("mqtt", events[10].id, seconds=0)
    ballast.unlink()
    outbox.retry()
    assert not set(first) & set(ids(state))


def test_too_many_in_memory_drop_the_oldest_and_count_them(disk: Path, fill: Callable[[Path], Path]) -> None:
    with State.open(disk, channels=["mqtt"]) as state:
        outbox = Outbox(state, max_in_memory=50_000)
        fill(disk)
        put = put_until_full(outbox)
        for _ in range(100):
            put.append(event("x" * 3000))
            outbox.put(put[-1:])
        kept = outbox.unwritten()["reject"]
        assert 10 < kept < 20
        assert waiting(outbox)[-kept:] == [each.id for each in put[-kept:]]
        assert outbox.take_dropped() == len(put) - len(ids(state)) - kept
        assert outbox.take_dropped() == 0


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
        outbox.remove("mqtt", ids(state)[:5])
        assert not outbox.is_full


def test_a_file_is_marked_together_with_its_event_once_the_disk_takes_them(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    file = ProcessedFile(folder="parts", path=b"part \xff.png", size=1, modified=2)
    ballast = fill(disk)
    before = put_until_full(outbox)
    mine = event("x" * 3000)
    outbox.put([mine], file)
    assert state.processed_files("parts") == {}
    assert waiting(outbox)[-1] == mine.id, "its alarm does not wait"
    ballast.unlink()
    outbox.retry()
    assert state.processed_files("parts") == {file.path: file}
    assert ids(state) == [each.id for each in [*before, mine]]
    assert not outbox.is_full


def test_a_file_without_an_event_needs_no_callback(tmp_path: Path) -> None:
    callbacks: list[bool] = []
    file = ProcessedFile(folder="parts", path=b"part.png", size=1, modified=2)
    with State.open(tmp_path, channels=["mqtt"]) as state:
        outbox = Outbox(state, on_added=lambda: callbacks.append(True))
        outbox.put([], file)
        assert state.processed_files("parts") == {file.path: file}
        assert callbacks == []
        outbox.put([event()], file)
        assert callbacks == [True]


def test_the_reserve_takes_events_while_the_disk_is_full(
    disk_of: Callable[[str], Path], fill: Callable[[Path], Path]
) -> None:
    disk = disk_of("16m")
    with State.open(disk, channels=["mqtt", "webhook"], reserve=2_000_000) as state:
        outbox = Outbox(state)
        fill(disk)
        assert outbox.is_full, "the disk is full, though events are still written"
        for _ in range(200):
            outbox.put([event("x" * 1000)])
        assert outbox.unwritten() == {}
        put_until_full(outbox)
    with State.open(disk, channels=["mqtt", "webhook"], reserve=2_000_000) as state:
        assert len(ids(state)) >= 200


def test_a_state_that_is_already_there_opens_on_a_full_disk(
    disk: Path, fill: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    State.open(disk, channels=["mqtt"]).close()
    fill(disk)
    with State.open(disk, channels=["mqtt"], reserve=2_000_000) as state:
        outbox = Outbox(state)
        outbox.put([event()])
        assert len(waiting(outbox)) == 1
    assert "2 MB cannot be reserved" in caplog.text


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
