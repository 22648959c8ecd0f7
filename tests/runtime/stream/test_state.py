import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.frame import ProcessedFile
from msc_edge.runtime.stream.state import State


def event(message: str = "scratched") -> Event:
    return Event(id=new_id(), kind="reject", time=now(), station="line3", source="cam1", message=message)


def ids(state: State, channel: str = "mqtt") -> list[str]:
    return [each.id for each in state.waiting(channel, limit=1_000_000)]


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of one MB."""
    return disk_of("1m")


WRITER = """
import sys
from pathlib import Path
from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.frame import ProcessedFile
from msc_edge.runtime.stream.state import State

with State.open(Path(sys.argv[1]), channels=["mqtt"]) as state:
    print("ready", flush=True)
    while True:
        id = new_id()
        state.record(
            [Event(id=id, kind="reject", time=now(), station="line3", message="x" * 500)],
            file=ProcessedFile(folder="parts", path=id.encode(), size=1, modified=2),
        )
        print(id, flush=True)
"""


def test_what_was_recorded_survives_kill_9_and_meanwhile_no_other_process_can_open_it(tmp_path: Path) -> None:
    recorded: list[str] = []
    for after in (1, 60):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            with pytest.raises(UsageError, match="another msc-edge stream"):
                State.open(tmp_path, channels=["mqtt"])
            lines = [process.stdout.readline().strip() for _ in range(after)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines()
        # The last line may be truncated.
        recorded += [line for line in lines if len(line) == len(new_id())]
        assert len(recorded) >= after
        with State.open(tmp_path, channels=["mqtt"]) as state:
            found = ids(state)
            files = state.processed_files("parts")
        assert set(recorded) <= set(found)
        assert len(found) == len(set(found))
        assert set(files) == {id.encode() for id in found}, "an event and its file are recorded together or not at all"


def test_each_channel_gets_each_event_in_order_until_it_was_delivered(tmp_path: Path) -> None:
    events = [event() for _ in range(5)]
    with State.open(tmp_path, channels=["mqtt", "webhook"]) as state:
        state.record(events[:3])
        state.record(events[3:])
        assert ids(state, "mqtt") == ids(state, "webhook") == [each.id for each in events]
        first, second, *_ = state.waiting("mqtt", limit=2)
        assert Event.model_validate_json(first.body) == events[0]
        assert (first.kind, first.source) == ("reject", "cam1")
        state.remove("mqtt", [first.id, second.id])
        assert state.backlog() == {"mqtt": 3, "webhook": 5}
    with State.open(tmp_path, channels=["mqtt", "webhook"]) as state:
        assert ids(state, "mqtt") == [each.id for each in events[2:]]
        assert state.backlog() == {"mqtt": 3, "webhook": 5}


def test_an_event_without_a_source_has_none(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([event().model_copy(update={"kind": "started", "source": None})])
        (waiting,) = state.waiting("mqtt", limit=1)
        assert (waiting.kind, waiting.source) == ("started", None)


def test_an_event_recorded_twice_waits_once(tmp_path: Path) -> None:
    one = event()
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([one])
        used = state.used_share
        state.record([one, one])
        assert ids(state) == [one.id]
        assert state.used_share == used


def test_numbers_are_not_used_twice(tmp_path: Path) -> None:
    """A late acknowledgement must not remove another event."""
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([event()])
        (first,) = state.waiting("mqtt", limit=1)
        state.remove("mqtt", [first.id])
        state.record([event()])
        assert state.waiting("mqtt", limit=1)[0].number > first.number
        state.remove("mqtt", [first.id])
        assert state.backlog() == {"mqtt": 1}


def test_beyond_the_size_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"], max_bytes=20_000) as state:
        events = [event("x" * 1000) for _ in range(50)]
        for each in events:
            state.record([each])
        left = ids(state)
        assert 5 < len(left) < 20
        assert left == [each.id for each in events[-len(left) :]]
        assert sum(len(each.body) for each in state.waiting("mqtt", limit=100)) <= 20_000
        assert 0.5 < state.used_share <= 1
        assert state.take_dropped() == 50 - len(left)
        assert state.take_dropped() == 0
        state.remove("mqtt", [each.id for each in state.waiting("mqtt", limit=100)])
        assert state.used_share == 0


def test_events_that_are_too_old_are_dropped_and_counted(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([event() for _ in range(3)])
        assert state.take_dropped() == 0
    with State.open(tmp_path, channels=["mqtt"], max_age=1e-6) as state:
        assert state.take_dropped() == 3
        assert state.backlog() == {"mqtt": 0}
        assert state.used_share == 0


def test_events_of_a_channel_that_is_no_longer_configured_are_kept(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["webhook"]) as state:
        state.record([event()])
    with State.open(tmp_path, channels=["mqtt"]) as state:
        assert state.backlog() == {"mqtt": 0}
    with State.open(tmp_path, channels=["webhook"]) as state:
        assert state.backlog() == {"webhook": 1}


def test_a_postponed_event_lets_others_go_first(tmp_path: Path) -> None:
    events = [event() for _ in range(3)]
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record(events)
        first, second, _ = state.waiting("mqtt", limit=3)
        state.postpone("mqtt", first.id, seconds=3600)
        state.postpone("mqtt", second.id, seconds=0)
        assert [(each.id, each.attempts) for each in state.waiting("mqtt", limit=3)] == [
            (events[1].id, 1),
            (events[2].id, 0),
        ]
        assert state.backlog() == {"mqtt": 3}


def test_a_new_ctime_does_not_mark_a_file_whose_row_still_waits(tmp_path: Path) -> None:
    touched = ProcessedFile("parts", b"a.png", 10, 5, changed=7, digest=b"content")
    with State.open(tmp_path) as state:
        state.update(touched)
        assert state.processed_files("parts") == {}
        state.record([], file=replace(touched, changed=6))
        state.update(touched)
        assert state.processed_files("parts") == {b"a.png": touched}


def test_a_processed_file_is_known_with_its_size_and_date(tmp_path: Path) -> None:
    name, modified = b"part \xff.png", 1_700_000_000_123_456_789
    with State.open(tmp_path) as state:
        assert state.processed_files("parts") == {}
        state.record([], file=ProcessedFile(folder="parts", path=name, size=10, modified=modified))
    with State.open(tmp_path) as state:
        assert state.processed_files("parts") == {name: ProcessedFile("parts", name, 10, modified)}
        assert state.processed_files("other") == {}
        state.record([], file=ProcessedFile("parts", name, 11, modified + 1))
        assert state.processed_files("parts") == {name: ProcessedFile("parts", name, 11, modified + 1)}
        state.forget("parts", [name, b"not known"])
        assert state.processed_files("parts") == {}


def test_threads_may_record_at_the_same_time(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"]) as state:
        threads = [
            threading.Thread(target=lambda: [state.record([event()]) for _ in range(25)], daemon=True) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = ids(state)
    assert len(found) == len(set(found)) == 100


def test_a_full_disk_is_reported_and_loses_nothing_that_was_recorded(small_disk: Path) -> None:
    recorded: list[str] = []
    with State.open(small_disk, channels=["mqtt"]) as state:

        def record_forever() -> None:
            while True:
                one = event("x" * 2000)
                state.record([one])
                recorded.append(one.id)

        with pytest.raises(OutputError, match="free some space"):
            record_forever()
        used = state.used_share
        assert ids(state) == recorded
        with pytest.raises(OutputError):
            state.record([event("x" * 100_000)])
        assert state.used_share == used
    # After a restart on the full disk all of them are there, and delivering them frees space.
    assert recorded
    with State.open(small_disk, channels=["mqtt"]) as state:
        assert ids(state) == recorded
