import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.state import FILE, DoneFile, State


def event(message: str = "scratched") -> Event:
    return Event(id=new_id(), kind="reject", time=now(), station="line3", source="cam1", message=message)


def ids(state: State, channel: str = "mqtt") -> list[str]:
    return [one.id for one in state.waiting(channel, most=1_000_000)]


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of one MB."""
    return disk_of("1m")


WRITER = """
import sys
from pathlib import Path
from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.state import DoneFile, State

with State.open(Path(sys.argv[1]), channels=["mqtt"]) as state:
    print("ready", flush=True)
    while True:
        id = new_id()
        state.record(
            [Event(id=id, kind="reject", time=now(), station="line3", message="x" * 500)],
            done=DoneFile(folder="parts", path=id.encode(), size=1, modified=2),
        )
        print(id, flush=True)
"""


@pytest.mark.parametrize("after", [1, 40, 150])
def test_what_was_recorded_survives_kill_9(tmp_path: Path, after: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "state"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        told = [process.stdout.readline().strip() for _ in range(after + 1)][1:]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().splitlines()
    # The last line may be cut in two.
    told = [one for one in told if len(one) == len(new_id())]
    with State.open(tmp_path / "state", channels=["mqtt"]) as state:
        found = ids(state)
        done = state.done_in("parts")
    assert len(told) >= after
    assert set(told) <= set(found)
    assert len(found) == len(set(found))
    assert set(done) == {one.encode() for one in found}, "an event and its file are recorded together or not at all"


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(UsageError, match="another msc-edge stream"):
            State.open(tmp_path, channels=["mqtt"])
        process.kill()
    State.open(tmp_path, channels=["mqtt"]).close()


def test_the_lock_is_held_before_anything_was_recorded(tmp_path: Path) -> None:
    for _ in range(2):  # a new database, and one that was there
        with State.open(tmp_path), pytest.raises(UsageError, match="another msc-edge stream"):
            State.open(tmp_path)


def test_each_channel_gets_each_event_in_order_until_it_was_delivered(tmp_path: Path) -> None:
    events = [event() for _ in range(5)]
    with State.open(tmp_path, channels=["mqtt", "webhook"]) as state:
        state.record(events[:3])
        state.record(events[3:])
        assert ids(state, "mqtt") == ids(state, "webhook") == [one.id for one in events]
        first, second, *_ = state.waiting("mqtt", most=2)
        assert Event.model_validate_json(first.body) == events[0]
        state.delivered([first.number, second.number])
        assert state.depth() == {"mqtt": 3, "webhook": 5}
    with State.open(tmp_path, channels=["mqtt", "webhook"]) as state:
        assert ids(state, "mqtt") == [one.id for one in events[2:]]
        assert state.depth() == {"mqtt": 3, "webhook": 5}


def test_an_event_recorded_twice_waits_once(tmp_path: Path) -> None:
    one = event()
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([one])
        used = state.fullness
        state.record([one, one])
        assert ids(state) == [one.id]
        assert state.fullness == used


def test_numbers_are_not_used_twice(tmp_path: Path) -> None:
    """An acknowledgement that comes late must not remove another event."""
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([event()])
        (first,) = state.waiting("mqtt", most=1)
        state.delivered([first.number])
        state.record([event()])
        assert state.waiting("mqtt", most=1)[0].number > first.number
        state.delivered([first.number])
        assert state.depth() == {"mqtt": 1}


def test_beyond_its_size_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"], max_bytes=20_000) as state:
        events = [event("x" * 1000) for _ in range(50)]
        for one in events:
            state.record([one])
        left = ids(state)
        assert 5 < len(left) < 20
        assert left == [one.id for one in events[-len(left) :]]
        assert sum(len(one.body) for one in state.waiting("mqtt", most=100)) <= 20_000
        assert 0.5 < state.fullness <= 1
        assert state.take_lost() == 50 - len(left)
        assert state.take_lost() == 0
        state.delivered([one.number for one in state.waiting("mqtt", most=100)])
        assert state.fullness == 0


def test_what_is_too_old_is_dropped_and_counted(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([event() for _ in range(3)])
        assert state.take_lost() == 0
    with State.open(tmp_path, channels=["mqtt"], max_age=1e-6) as state:
        assert state.take_lost() == 3
        assert state.depth() == {"mqtt": 0}
        assert state.fullness == 0


def test_a_channel_that_is_not_configured_any_more_ages_like_the_others(tmp_path: Path) -> None:
    with State.open(tmp_path, channels=["webhook"]) as state:
        state.record([event()])
    with State.open(tmp_path, channels=["mqtt"]) as state:
        assert state.depth() == {"mqtt": 0}
    with State.open(tmp_path, channels=["webhook"]) as state:
        assert state.depth() == {"webhook": 1}


def test_a_postponed_event_lets_others_go_first(tmp_path: Path) -> None:
    events = [event() for _ in range(3)]
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record(events)
        first, second, _ = state.waiting("mqtt", most=3)
        state.postpone(first.number, seconds=3600)
        state.postpone(second.number, seconds=0)
        assert [(one.id, one.attempts) for one in state.waiting("mqtt", most=3)] == [
            (events[1].id, 1),
            (events[2].id, 0),
        ]
        assert state.depth() == {"mqtt": 3}


def test_a_file_is_done_while_it_is_the_same(tmp_path: Path) -> None:
    name = b"part \xff.png"
    with State.open(tmp_path) as state:
        file = DoneFile(folder="parts", path=name, size=10, modified=1_700_000_000_123_456_789)
        assert not state.is_done(file)
        state.record([], done=file)
    with State.open(tmp_path) as state:
        assert state.is_done(file)
        assert not state.is_done(DoneFile("parts", name, 11, file.modified))
        assert not state.is_done(DoneFile("parts", name, 10, file.modified + 1))
        assert not state.is_done(DoneFile("other", name, 10, file.modified))
        newer = DoneFile("parts", name, 11, file.modified + 1)
        state.record([], done=newer)
        assert state.done_in("parts") == {name: (newer.size, newer.modified)}
        assert state.done_in("other") == {}
        state.forget("parts", [name, b"never there"])
        assert not state.is_done(newer)


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


def test_a_full_disk_is_told_and_loses_nothing_that_was_recorded(small_disk: Path) -> None:
    recorded: list[str] = []
    with State.open(small_disk, channels=["mqtt"]) as state:

        def record_for_ever() -> None:
            while True:
                one = event("x" * 2000)
                state.record([one])
                recorded.append(one.id)

        with pytest.raises(OutputError, match="free some space"):
            record_for_ever()
        used = state.fullness
        assert ids(state) == recorded
        with pytest.raises(OutputError):
            state.record([event("x" * 100_000)])
        assert state.fullness == used
    # A restart on the full disk still has all of them, and can make room by delivering.
    assert recorded
    with State.open(small_disk, channels=["mqtt"]) as state:
        assert ids(state) == recorded


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        State.open(tmp_path / "file" / "state")


@pytest.mark.parametrize("where", [0, 30, 5000])
def test_a_damaged_database_is_told(tmp_path: Path, where: int) -> None:
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([event("x" * 1000) for _ in range(50)])
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    assert len(content) > where + 8000
    content[where : where + 8000] = b"\xa5" * 8000
    path.write_bytes(content)

    def use() -> None:
        with State.open(tmp_path, channels=["mqtt"]) as state:
            ids(state)
            state.record([event()])

    with pytest.raises(OutputError, match=FILE):
        use()


def test_a_database_of_another_version_is_left_alone(tmp_path: Path) -> None:
    State.open(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(UsageError, match="version 7"):
        State.open(tmp_path)


def test_one_that_is_removed_while_it_is_worked_with_is_written_anew(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with State.open(folder, channels=["mqtt"]) as state:
        state.record([event()])
        shutil.rmtree(folder)
        state.record([event()])
        assert state.depth() == {"mqtt": 2}
        with pytest.raises(UsageError, match="another msc-edge stream"):
            State.open(folder)
    with State.open(folder, channels=["mqtt"]) as state:
        assert state.depth() == {"mqtt": 2}
