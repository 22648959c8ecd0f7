import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.state import DoneFile, State

PATIENCE = 30.0
MOST_IN_MEMORY = 10_000  # as docs and code have it: some hours of rejects


def event(message: str = "scratched") -> Event:
    return Event(id=new_id(), kind="reject", time=now(), station="line3", source="cam1", message=message)


def ids(state: State, channel: str = "mqtt") -> list[str]:
    return [one.id for one in state.waiting(channel, most=1_000_000)]


@pytest.fixture
def disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of 16 MB."""
    return disk_of("16m")


@pytest.fixture
def state(disk: Path) -> Iterator[State]:
    with State.open(disk / "state", channels=["mqtt", "webhook"]) as state:
        yield state


def put_until_full(outbox: Outbox) -> list[Event]:
    """Put events until the disk takes no more; the last of them wait in memory."""
    done: list[Event] = []
    end = time.monotonic() + PATIENCE
    while not outbox.is_full:
        assert time.monotonic() < end
        done.append(event("x" * 3000))
        outbox.put(done[-1:])
    return done


def test_events_are_recorded_at_once_for_each_channel_and_it_is_told(tmp_path: Path) -> None:
    told: list[dict[str, int]] = []
    events = [event() for _ in range(5)]
    with State.open(tmp_path, channels=["mqtt", "webhook"]) as state:
        outbox = Outbox(state, recorded=lambda: told.append(state.depth()))
        outbox.put(events[:2])
        outbox.put([])
        outbox.put(events[2:])
        assert ids(state, "mqtt") == ids(state, "webhook") == [one.id for one in events]
        assert outbox.depth() == {"mqtt": 5, "webhook": 5}
    # Whoever is told finds them there.
    assert told == [{"mqtt": 2, "webhook": 2}, {"mqtt": 5, "webhook": 5}]


def test_while_the_disk_is_full_events_wait_and_all_are_recorded_in_order_when_there_is_space(
    disk: Path, state: State, caplog: pytest.LogCaptureFixture, fill: Callable[[Path], Path]
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    told: list[int] = []
    outbox = Outbox(state, recorded=lambda: told.append(len(ids(state))))
    events = [event() for _ in range(3)]
    outbox.put(events)
    ballast = fill(disk)
    events += put_until_full(outbox)
    on_disk, times = len(ids(state)), len(told)
    assert on_disk < len(events)
    for _ in range(50):
        events.append(event())
        outbox.put(events[-1:])
        outbox.retry()
    assert outbox.depth() == {"mqtt": len(events), "webhook": len(events)}, "those in memory wait too"
    assert len(ids(state)) == on_disk
    assert len(told) == times, "nobody is told of what is not there"
    ballast.unlink()
    outbox.retry()
    assert ids(state, "mqtt") == ids(state, "webhook") == [one.id for one in events]
    assert told[-1] == len(events)
    assert not outbox.is_full
    assert outbox.take_lost() == 0
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO"], "that it is full is said once, and that it is well again"
    assert "free some space" in caplog.text


def test_an_event_that_comes_when_there_is_space_again_takes_the_others_along(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    ballast = fill(disk)
    events = put_until_full(outbox)
    ballast.unlink()
    events.append(event())
    outbox.put(events[-1:])
    assert ids(state) == [one.id for one in events]


def test_too_many_in_memory_lose_the_oldest_and_they_are_counted(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    ballast = fill(disk)
    on_disk = put_until_full(outbox)
    on_disk, waiting = on_disk[:-1], on_disk[-1:]
    assert ids(state) == [one.id for one in on_disk]
    waiting += [event() for _ in range(MOST_IN_MEMORY + 49)]
    outbox.put(waiting[1:])
    assert outbox.take_lost() == 50
    assert outbox.take_lost() == 0
    ballast.unlink()
    outbox.retry()
    assert ids(state) == [one.id for one in on_disk + waiting[50:]]


def test_what_the_state_drops_is_counted_once(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"], max_bytes=20_000) as state:
        outbox = Outbox(state)
        for _ in range(50):
            outbox.put([event("x" * 1000)])
        left = len(ids(state))
        assert 5 < left < 20
        assert outbox.take_lost() == 50 - left
        assert outbox.take_lost() == 0
        assert outbox.is_full, "at more than nine tenths events are about to be lost"
        state.delivered([one.number for one in state.waiting("mqtt", most=5)])
        assert not outbox.is_full


def test_a_file_and_its_event_are_recorded_together_or_not_at_all(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    file = DoneFile(folder="parts", path=b"part \xff.png", size=1, modified=2)
    ballast = fill(disk)
    waiting = put_until_full(outbox)
    mine = event("x" * 3000)
    before = ids(state)
    assert not outbox.put_with([mine], file)
    assert ids(state) == before
    assert not state.is_done(file)
    ballast.unlink()
    assert outbox.put_with([mine], file)
    assert state.is_done(file)
    assert not outbox.is_full
    outbox.retry()
    assert sorted(ids(state)) == sorted(one.id for one in [*waiting, mine])


def test_a_file_without_an_event_is_marked_and_wakes_nobody(tmp_path: Path) -> None:
    told: list[bool] = []
    file = DoneFile(folder="parts", path=b"part.png", size=1, modified=2)
    with State.open(tmp_path, channels=["mqtt"]) as state:
        outbox = Outbox(state, recorded=lambda: told.append(True))
        assert outbox.put_with([], file)
        assert state.is_done(file)
        assert told == []
        assert outbox.put_with([event()], file)
        assert told == [True]


def test_it_is_not_called_full_for_ever_when_accounts_could_not_be_made_on_a_full_disk(
    disk: Path, fill: Callable[[Path], Path]
) -> None:
    """/readyz hangs on it. Old events are dropped with a write, too, which a full disk refuses; no new event comes."""
    with State.open(disk / "state", channels=["mqtt"], max_age=1e-3) as state:
        outbox = Outbox(state)
        outbox.put([event("x" * 3000) for _ in range(400)])
        ballast = fill(disk)
        outbox.take_lost()
        ballast.unlink()
        outbox.retry()
        outbox.take_lost()
        outbox.depth()
        assert not outbox.is_full


def test_threads_may_put_while_the_disk_fills_and_empties(
    disk: Path, state: State, fill: Callable[[Path], Path]
) -> None:
    outbox = Outbox(state)
    mine: list[list[Event]] = [[] for _ in range(4)]

    def put(events: list[Event]) -> None:
        for _ in range(60):
            events.append(event("x" * 500))
            outbox.put(events[-1:])
            time.sleep(0.001)

    threads = [threading.Thread(target=put, args=(events,), daemon=True) for events in mine]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        ballast = fill(disk)
        time.sleep(0.02)
        ballast.unlink()
        time.sleep(0.02)
    outbox.retry()
    found = ids(state)
    assert len(found) == len(set(found)) == 240
    for events in mine:
        wanted = {one.id for one in events}
        assert [one for one in found if one in wanted] == [one.id for one in events], "in the order they were put"
    assert outbox.take_lost() == 0
