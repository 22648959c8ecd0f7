"""Ages on PCs whose clock is set while they run, with a clock that the test sets."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from msc_edge.runtime.stream.clock import Clock, boot_id, seconds_since_boot
from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.state import State

DAY = 86400.0
IN_2020 = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
IN_2026 = datetime(2026, 11, 29, tzinfo=UTC).timestamp()


class Machine:
    """A PC whose clock can be set, and which can boot again."""

    def __init__(self, wall: float) -> None:
        self.wall = wall
        self.running = 10.0
        self.boot = "first"

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.running += seconds

    def reboot(self, wall: float) -> None:
        self.wall, self.running, self.boot = wall, 5.0, self.boot + "+"

    def clock(self, path: Path | None = None) -> Clock:
        return Clock(path, wall=lambda: self.wall, running=lambda: self.running, boot=self.boot)


@pytest.fixture
def machine() -> Machine:
    return Machine(IN_2020)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "clock.json"


def test_without_a_step_an_age_is_the_difference(machine: Machine) -> None:
    clock = machine.clock()
    machine.wait(3 * DAY)
    assert clock.age(IN_2020) == 3 * DAY
    assert clock.age(IN_2020 - DAY) == 4 * DAY, "what was stored before this start"
    assert clock.steps() == 0


def test_a_clock_that_is_set_makes_nothing_older(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = machine.clock()
    machine.wait(60)
    stored = machine.wall
    machine.wait(60)
    machine.wall = IN_2026
    machine.wait(60)
    assert clock.age(stored) == pytest.approx(120)
    assert clock.corrected(stored) == pytest.approx(IN_2026 - 60)
    assert clock.age(IN_2026) == pytest.approx(60)
    assert clock.age(IN_2026 - DAY) == pytest.approx(DAY + 60), "what an earlier boot stored"
    assert clock.steps() == 1
    assert "the clock of this PC was set by" in caplog.text


def test_a_clock_that_is_set_back_makes_nothing_younger_and_two_steps_add_up(machine: Machine) -> None:
    clock = machine.clock()
    machine.wait(100)
    first = machine.wall
    machine.wall = IN_2026
    assert clock.steps() == 1
    machine.wait(100)
    second = machine.wall
    machine.wall = IN_2026 - 5 * DAY
    machine.wait(100)
    assert clock.age(second) == pytest.approx(100)
    assert clock.age(first) == pytest.approx(200)


def test_a_slow_correction_is_no_step(machine: Machine) -> None:
    clock = machine.clock()
    for _ in range(1000):
        machine.wait(1)
        machine.wall += 0.5
        clock.now()
    assert clock.steps() == 0


def test_the_steps_survive_a_restart_also_one_that_came_while_nothing_ran(machine: Machine, path: Path) -> None:
    clock = machine.clock(path)
    machine.wait(60)
    stored = machine.wall
    clock.now()
    machine.wait(30)
    machine.wall = IN_2026  # the service does not run
    machine.wait(30)
    later = machine.clock(path)
    assert later.age(stored) == pytest.approx(60)
    assert machine.clock(path).age(stored) == pytest.approx(60)


def test_what_an_earlier_boot_stored_before_its_clock_was_set_keeps_its_age(machine: Machine, path: Path) -> None:
    """A PC without a battery shows 2020 at each boot."""
    clock = machine.clock(path)
    stored = machine.wall + 50
    machine.wait(60)
    machine.wall = IN_2026
    clock.now()
    machine.wait(DAY)
    machine.reboot(IN_2020 + 3600)
    after = machine.clock(path)
    machine.wait(60)
    machine.wall = IN_2026 + DAY + 120
    assert after.age(stored) == pytest.approx(DAY + 120 + 10)
    assert after.age(IN_2026 + 100) == pytest.approx(DAY + 20)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"steps": [{"a": 1}]}', b"\xff\xfe", b"[]", b"null"])
def test_a_damaged_file_is_reported_and_begun_again(
    machine: Machine, path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    clock = machine.clock(path)
    assert clock.age(IN_2020) == 0
    assert f"{path}: cannot be used" in caplog.text
    assert json.loads(path.read_text())["steps"] == []


def test_the_real_clocks_agree(path: Path) -> None:
    clock = Clock(path)
    before = clock.now()
    assert 0 <= clock.age(before) < 60
    assert json.loads(path.read_text())["last"]["boot"] == boot_id() == boot_id()
    assert seconds_since_boot() <= seconds_since_boot()


def test_events_of_this_boot_are_not_too_old_because_the_clock_was_set(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def event() -> Event:
        return Event(id=new_id(), kind="reject", time=now(), station="line3", source="cam", message="scratched")

    monkeypatch.setattr("msc_edge.runtime.stream.state.time.time", lambda: machine.wall)
    with State.open(tmp_path, channels=["mqtt"], max_age=7 * DAY, clock=machine.clock()) as state:
        machine.wait(60)
        state.record([event() for _ in range(47)])
        machine.wait(60)
        machine.wall = IN_2026
        assert state.take_dropped() == 0
        assert state.backlog() == {"mqtt": 47}
        machine.wait(8 * DAY)
        assert state.take_dropped() == 47
