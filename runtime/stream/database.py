"""The SQLite file of a stream's state: its tables, and how it is opened."""

import sqlite3
from pathlib import Path

from msc_edge.errors import OutputError, UsageError, writing

_VERSION = 1
_TABLES = """
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    recorded REAL NOT NULL,   -- time.time()
    due REAL NOT NULL,        -- time.time() before which it is not tried again
    attempts INTEGER NOT NULL DEFAULT 0,
    UNIQUE (channel, id)
) STRICT;
CREATE INDEX outbox_of_channel ON outbox (channel, number);
CREATE TABLE done (
    folder TEXT NOT NULL,
    path BLOB NOT NULL,       -- relative to the folder, as the file system has it
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL, -- nanoseconds
    PRIMARY KEY (folder, path)
) STRICT, WITHOUT ROWID;
"""


def identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, however it is called: device and inode; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, or begin it, and lock it.

    UsageError when another process has it, OutputError when it cannot be used.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            _prepare(database, path)
            database.execute("SELECT count(*), sum(length(body)) FROM outbox").fetchone()  # is it damaged?
        except BaseException:
            database.close()
            raise
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise UsageError(
                f"{path.parent}: another msc-edge stream works with this state; stop it, or give this one "
                "a `state` folder of its own"
            ) from error
        raise OutputError(
            f"{path}: cannot be used ({error}); check the disk, or move the file away: "
            "events that wait in it would then not be delivered"
        ) from error
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        database.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
    elif version != _VERSION:
        raise UsageError(
            f"{path}: is of another msc-edge (version {version}, this one has {_VERSION}); "
            "give this one a `state` folder of its own"
        )
    else:
        # Take the lock now, and not at the first event.
        database.executescript("BEGIN IMMEDIATE; COMMIT;")
