"""Ages on PCs whose clock is set while they run, with a clock that the test sets."""

import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from msc_edge.runtime.stream.clock import Clock, boot_id, seconds_since_boot
from msc_edge.runtime.stream.config_sections import ImagesConfig
from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.sinks.image_store import ImageStore
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
    assert clock.age(IN_2020 + DAY) == 2 * DAY
    assert clock.age(IN_2020 - 900 * DAY) == 3 * DAY, "nobody knows how long before this start"


def test_a_clock_that_is_set_makes_nothing_older(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = machine.clock()
    machine.wait(60)
    stored = machine.wall
    machine.wait(60)
    machine.wall = IN_2026
    clock.counted()
    machine.wait(60)
    assert clock.age(stored) == pytest.approx(120)
    assert clock.age(IN_2026) == pytest.approx(60)
    assert clock.age(IN_2026 - DAY) == pytest.approx(60), "of an unknown boot"
    assert "the clock of this PC was set by" in caplog.text


def test_a_clock_that_is_set_back_makes_nothing_younger_and_two_steps_add_up(machine: Machine) -> None:
    clock = machine.clock()
    machine.wait(100)
    first = machine.wall
    machine.wall = IN_2026
    clock.counted()
    machine.wait(100)
    second = machine.wall
    machine.wall = IN_2026 - 5 * DAY
    before_it_was_noticed = machine.wall + 0.1
    machine.wait(0.2)
    clock.counted()
    machine.wait(99.8)
    assert clock.age(second) == pytest.approx(100)
    assert clock.age(first) == pytest.approx(200)
    assert clock.age(before_it_was_noticed) < 101


def test_many_slow_corrections_are_no_step_and_change_no_age(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    clock = machine.clock()
    stored = []
    for _ in range(1000):
        stored.append(machine.wall)
        machine.wait(1)
        machine.wall += 0.5
        clock.counted()
    assert [clock.age(each) for each in stored] == pytest.approx(range(1000, 0, -1), abs=61)
    assert clock.counted() == 1000
    assert "was set" not in caplog.text


def test_the_count_survives_a_restart_also_with_a_step_while_nothing_ran(machine: Machine, path: Path) -> None:
    clock = machine.clock(path)
    machine.wait(60)
    stored = machine.wall
    clock.counted()
    machine.wait(30)
    machine.wall = IN_2026  # the service does not run
    machine.wait(30)
    later = machine.clock(path)
    assert later.age(stored) == pytest.approx(60)
    assert machine.clock(path).age(stored) == pytest.approx(60)


@pytest.mark.parametrize("next_boot", [IN_2020 - 900 * DAY, IN_2020 + 5, IN_2020 + 30, IN_2020 + 8 * DAY, IN_2026])
def test_the_time_between_two_boots_counts_nothing(machine: Machine, path: Path, next_boot: float) -> None:
    """Each boot may have a wrong clock from its beginning to its end; the PC may have been off for a minute."""
    clock = machine.clock(path)
    machine.wait(60)
    stored = machine.wall
    machine.wait(3600)
    clock.save()
    machine.reboot(next_boot)
    clock = machine.clock(path)
    assert 0 <= clock.age(stored) <= 3600
    in_second = machine.wall
    machine.wait(DAY)
    clock.save()
    machine.reboot(IN_2020)
    clock = machine.clock(path)
    machine.wait(60)
    assert 0 <= clock.age(stored) <= DAY + 3660
    assert 0 <= clock.age(in_second) <= DAY + 60
    machine.wait(20 * DAY)
    assert clock.age(stored) >= 20 * DAY, "it becomes old nevertheless"


def test_a_power_cut_loses_a_few_minutes_of_the_count_and_makes_nothing_older(machine: Machine, path: Path) -> None:
    clock = machine.clock(path)
    for _ in range(100):
        machine.wait(60)
        clock.counted()
    stored = machine.wall  # nothing is saved any more
    machine.reboot(IN_2026)
    clock = machine.clock(path)
    assert 5400 <= clock.counted() <= 6000
    machine.wait(60)
    assert clock.age(stored) == pytest.approx(60)


def test_of_very_many_boots_the_last_ones_are_remembered_and_the_count_goes_on(machine: Machine, path: Path) -> None:
    clock = machine.clock(path)
    document = json.loads(path.read_text())
    document["stretches"] = [[IN_2020 + boot * DAY, IN_2020 + boot * DAY + 10, 10 * boot, 10] for boot in range(1000)]
    path.write_text(json.dumps(document))
    for _ in range(3):
        machine.reboot(IN_2026)
        clock = machine.clock(path)
        machine.wait(10)
        clock.save()
    stretches = json.loads(path.read_text())["stretches"]
    assert (len(stretches), stretches[0][0]) == (1000, IN_2020 + 3 * DAY)
    assert clock.counted() == 10_030
    assert clock.age(IN_2020 + 2 * DAY) == 10_000, "stored in a boot that is forgotten"
    assert clock.age(IN_2020 + 500 * DAY) == 5030


DAMAGED = [
    *(b"", b"{}", b'{"stretches": [], "last": []}', b"\xff\xfe", b"[]", b"null", b"[" * 100_000),
    b'{"last": ["first", NaN, 1], "stretches": [[1, 1, 0, 0]]}',
    b'{"last": ["first", 1, 1], "stretches": [[1, 1, 0, -Infinity]]}',
    b'{"last": ["first", 1, 1], "stretches": [[1, 1, 0, %s]]}' % (b"9" * 400),  # larger than any float
    b'{"last": ["first", 1, 1], "stretches": [[1, 1, 0, 86400]]}',  # the wall clock did not go on as long
    b'{"last": ["first", 1, 1], "stretches": [[1, 1, 0, 0], [5, 5, 86400, 0]]}',  # counted by no stretch
    b'{"last": ["first", 1, 1], "stretches": [[1, 1, 4e9, 0]]}',  # more than a century
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_reported_and_replaced(
    machine: Machine, path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    clock = machine.clock(path)
    assert clock.age(IN_2020) == 0
    assert f"{path}: cannot be used" in caplog.text
    assert json.loads(path.read_text())["stretches"] == [[IN_2020, IN_2020, 0, 0]]


def test_the_real_clocks_agree(path: Path) -> None:
    clock = Clock(path)
    assert -0.001 < clock.age(time.time()) < 60  # two clocks, read one after the other
    assert json.loads(path.read_text())["last"][0] == boot_id() == boot_id()
    assert seconds_since_boot() <= seconds_since_boot()


def test_events_and_images_of_a_boot_with_a_wrong_clock_are_kept_as_long_as_configured(
    machine: Machine, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole first boot is in 2020; then the PC is off for a night, and the next boot is in 2026."""
    name = "saved/2020-01-01/cam/20200101T001000.000Z_reject_0.5000_0123abcd.jpg"
    image = tmp_path / name
    image.parent.mkdir(parents=True)
    images = ImagesConfig(folder=tmp_path / "saved", max_days=7)
    monkeypatch.setattr("msc_edge.runtime.stream.state.time.time", lambda: machine.wall)

    def event() -> Event:
        return Event(id=new_id(), kind="reject", time=now(), station="line3", source="cam", message="scratched")

    def left() -> tuple[int, int, bool]:
        """Dropped and waiting events; whether the image is there."""
        with State.open(tmp_path, channels=["mqtt"], max_age=7 * DAY, clock=clock) as state:
            ImageStore(images, clock).close()
            return state.take_dropped(), state.backlog()["mqtt"], image.exists()

    clock = machine.clock(path)
    with State.open(tmp_path, channels=["mqtt"], max_age=7 * DAY, clock=clock) as state:
        machine.wait(600)
        state.record([event() for _ in range(47)])
        image.write_bytes(b"jpeg")
    machine.wait(DAY)
    assert left() == (0, 47, True)
    clock.save()
    machine.reboot(IN_2026)
    clock = machine.clock(path)
    assert left() == (0, 47, True)
    machine.wait(5.9 * DAY)
    assert left() == (0, 47, True)
    machine.wall -= 3 * 365 * DAY
    assert left() == (0, 47, True)
    machine.wait(0.2 * DAY)
    assert left() == (47, 0, False)
