"""Opening, locking and migrating the database of the state."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msc_edge import __version__
from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.stream.database import open_database
from msc_edge.runtime.stream.events import Event, new_id, now
from msc_edge.runtime.stream.frame import ProcessedFile
from msc_edge.runtime.stream.state import FILE, State

CHANNELS = ("mqtt", "webhook")
BACKUP = f"{FILE}.version-1.backup"
Expected = dict[str, list[dict[str, Any]]]


@pytest.fixture
def folder(written_by_0_1_0: Path, tmp_path: Path) -> Path:
    """A state folder with a database that msc-edge 0.1.0 wrote."""
    shutil.copyfile(written_by_0_1_0 / FILE, tmp_path / FILE)
    return tmp_path


@pytest.fixture(scope="module")
def expected(written_by_0_1_0: Path) -> Expected:
    """For each channel the events that wait in it."""
    return json.loads((written_by_0_1_0 / "expected.json").read_text(encoding="utf-8"))["waiting"]


def dump(path: Path) -> tuple[int, list[str]]:
    """Version and content."""
    database = sqlite3.connect(path)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        return version, list(database.iterdump())
    finally:
        database.close()


def test_a_database_of_0_1_0_opens_and_no_event_is_lost(folder: Path, expected: Expected) -> None:
    with State.open(folder, channels=CHANNELS, max_age=float("inf")) as state:
        for channel in CHANNELS:
            waiting = state.waiting(channel, limit=100)
            found = [(each.number, each.id, each.attempts, json.loads(each.body)) for each in waiting]
            assert found == [
                (each["number"], each["id"], each["attempts"], each["event"]) for each in expected[channel]
            ]
            assert [(each.kind, each.source) for each in waiting] == [
                (each["event"]["kind"], each["event"]["source"]) for each in expected[channel]
            ]
        assert state.backlog() == {channel: len(expected[channel]) for channel in CHANNELS}
        assert state.take_dropped() == 0


def test_its_processed_files_are_not_scored_again(folder: Path) -> None:
    with State.open(folder) as state:
        assert state.processed_files("/line/in") == {
            name: ProcessedFile("/line/in", name, size, modified)
            for name, size, modified in (
                (b"caf\xe9.png", 456, 1_700_000_001_000_000_000),
                (b"part 1.png", 123, 1_700_000_000_000_000_000),
            )
        }


def test_its_numbers_are_not_used_again(folder: Path, expected: Expected) -> None:
    """A late acknowledgement must not remove another event."""
    last = max(each["number"] for events in expected.values() for each in events)
    with State.open(folder, channels=["mqtt"], max_age=float("inf")) as state:
        state.remove("mqtt", [each.id for each in state.waiting("mqtt", limit=100)])
        state.record([Event(id=new_id(), kind="started", time=now(), station="line3", message="started")])
        assert state.waiting("mqtt", limit=1)[0].number > last


def test_a_backup_equals_the_original(folder: Path) -> None:
    before = dump(folder / FILE)
    State.open(folder).close()
    assert sorted(path.name for path in folder.iterdir()) == [FILE, BACKUP]
    assert dump(folder / BACKUP) == before
    assert dump(folder / FILE)[0] == 3


def test_a_backup_can_be_used_as_state(folder: Path, expected: Expected) -> None:
    State.open(folder).close()
    (folder / BACKUP).replace(folder / FILE)
    with State.open(folder, channels=CHANNELS) as state:
        assert state.backlog() == {channel: len(expected[channel]) for channel in CHANNELS}


def test_a_current_database_is_neither_migrated_nor_backed_up(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    State.open(folder).close()
    (folder / BACKUP).unlink()
    migrated = dump(folder / FILE)
    State.open(folder).close()
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert dump(folder / FILE) == migrated
    new = tmp_path_factory.mktemp("new")
    State.open(new).close()
    assert [path.name for path in new.iterdir()] == [FILE], "a new database needs no backup"


KILLED = """
import os, signal, sys
from pathlib import Path
from msc_edge.runtime.stream import database

migrate = database._version_2
def killed(connection):
    migrate(connection)
    assert connection.execute("SELECT count(*) FROM processed_files").fetchone() == (2,)
    os.kill(os.getpid(), signal.SIGKILL)
database._MIGRATIONS = (database._version_1, killed)
database.open_database(Path(sys.argv[1]))
"""


def test_a_killed_migration_leaves_the_old_database_usable(folder: Path, expected: Expected) -> None:
    before = dump(folder / FILE)
    done = subprocess.run([sys.executable, "-c", KILLED, folder / FILE], check=False)
    assert done.returncode == -signal.SIGKILL
    assert dump(folder / FILE) == before
    with State.open(folder, channels=CHANNELS) as state:
        assert state.backlog() == {channel: len(expected[channel]) for channel in CHANNELS}


def test_without_space_for_the_backup_the_old_database_remains(
    folder: Path, disk_of: Callable[[str], Path], fill: Callable[[Path], Path]
) -> None:
    disk = disk_of("256k")
    shutil.copyfile(folder / FILE, disk / FILE)
    before = dump(disk / FILE)
    ballast = fill(disk)
    with pytest.raises(OutputError, match="free some space"):
        State.open(disk)
    ballast.unlink()
    assert dump(disk / FILE) == before
    assert [path.name for path in disk.iterdir()] == [FILE]
    State.open(disk).close()
    assert dump(disk / BACKUP) == before


def test_a_database_of_a_newer_version_names_the_msc_edge_that_reads_it(tmp_path: Path) -> None:
    path = tmp_path / FILE
    open_database(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.execute("UPDATE metadata SET value = '9.8.7'")
    database.commit()
    database.close()
    before = dump(path)
    message = (
        rf"{path}: written by msc-edge 9\.8\.7 \(database version 7\); msc-edge {__version__} reads versions up to 3\. "
        r"Install msc-edge 9\.8\.7, or give this stream another `state` folder"
    )
    with pytest.raises(UsageError, match=message):
        open_database(path)
    assert dump(path) == before


def test_a_newer_database_without_metadata_is_refused_too(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(UsageError, match="written by msc-edge of a newer version"):
        open_database(tmp_path / FILE)


def test_the_metadata_names_the_msc_edge_that_opened_it_last(tmp_path: Path) -> None:
    for _ in range(2):
        database = open_database(tmp_path / FILE)
        found = database.execute("SELECT * FROM metadata").fetchall()
        database.execute("UPDATE metadata SET value = '0.0.1'")
        database.close()
        assert found == [("msc_edge_version", __version__)]


def test_it_is_locked_before_the_first_event(tmp_path: Path) -> None:
    for _ in range(2):  # a new database, and an existing one
        with State.open(tmp_path), pytest.raises(UsageError, match="another msc-edge stream uses this state"):
            State.open(tmp_path)


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        open_database(tmp_path / "file" / "state" / FILE)


@pytest.mark.parametrize("where", [0, 30, 5000])
def test_a_damaged_database_is_reported(tmp_path: Path, where: int) -> None:
    event = Event(id=new_id(), kind="reject", time=now(), station="line3", message="x" * 1000)
    with State.open(tmp_path, channels=["mqtt"]) as state:
        state.record([event.model_copy(update={"id": new_id()}) for _ in range(50)])
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    assert len(content) > where + 8000
    content[where : where + 8000] = b"\xa5" * 8000
    path.write_bytes(content)

    def use() -> None:
        with State.open(tmp_path, channels=["mqtt"]) as state:
            state.waiting("mqtt", limit=100)
            state.record([event])

    with pytest.raises(OutputError, match=FILE):
        use()


def test_any_damage_is_reported_or_harmless(tmp_path: Path) -> None:
    """Also where the message of SQLite quotes bytes of the file that are not text."""
    event = Event(id=new_id(), kind="reject", time=now(), station="line3", message="x" * 300)
    with State.open(tmp_path / "whole", channels=["mqtt"]) as state:
        state.record([event.model_copy(update={"id": new_id()}) for _ in range(50)])
    whole = (tmp_path / "whole" / FILE).read_bytes()
    random = np.random.default_rng(0)
    (tmp_path / "damaged").mkdir()
    outcomes = Counter()
    for _ in range(120):
        content = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(4096 if random.integers(2) else len(whole)))
            content[at : at + int(random.integers(1, 60))] = random.bytes(int(random.integers(1, 60)))
        (tmp_path / "damaged" / FILE).write_bytes(content)
        try:
            with State.open(tmp_path / "damaged", channels=["mqtt"]) as state:
                waiting = state.waiting("mqtt", limit=20)
                state.remove("mqtt", [each.id for each in waiting])
                state.record([event])
                state.take_dropped()
            outcomes["used"] += 1
        except (OutputError, UsageError):
            outcomes["reported"] += 1
    assert min(outcomes["used"], outcomes["reported"]) > 0
