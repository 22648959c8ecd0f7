"""The SQLite file of a stream's state: opening, locking, and migration from older versions.

The version is `PRAGMA user_version`. A database of an older version is backed up beside the file and migrated in one
transaction; a process that is killed meanwhile leaves the old database.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msc_edge import __version__
from msc_edge.errors import OutputError, UsageError, writing
from msc_edge.files import written_whole
from msc_edge.runtime.sqlite_errors import SQLITE_ERRORS, code_of
from msc_edge.runtime.stream.logs import LOG

_CHECKPOINT = 256  # pages of the write-ahead log after which they are copied into the file, which reuses the log


def memory_database() -> sqlite3.Connection:
    """A database of the current version that no disk holds."""
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _create(database, version=0)
    return database


def open_database(path: Path, *, reserve: int = 0) -> sqlite3.Connection:
    """Open the file, or create it, migrate it to the current version, and lock it.

    `reserve`: bytes that the file and its log can hold before they need more space of the disk.

    Raises UsageError when another process uses it or a newer msc-edge wrote it, OutputError when it cannot be used.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            # Locks the file now, not at the first event.
            database.execute("BEGIN IMMEDIATE")
            database.execute("COMMIT")
            _migrate(database, path)
            database.execute("SELECT count(*), sum(length(body)) FROM outbox").fetchone()  # fails if it is damaged
            if reserve:
                _reserve(database, path, reserve)
        except BaseException:
            database.close()
            raise
    except SQLITE_ERRORS as error:
        if code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise UsageError(
                f"{path.parent}: another msc-edge stream uses this state; stop it, or give this one "
                "its own `state` folder"
            ) from error
        if code_of(error) == sqlite3.SQLITE_FULL:
            raise OutputError(f"{path}: cannot be migrated ({error}); free some space there") from error
        raise OutputError(
            f"{path}: cannot be used ({error}); check the disk, or move the file away: "
            "events in it are then not delivered"
        ) from error
    return database


def _reserve(database: sqlite3.Connection, path: Path, size: int) -> None:
    """Take space of the disk for the file and its log, and leave it empty: SQLite uses it first, and gives none back.

    A file of its own, to be removed when the disk is full, would not do: saved images would take its space at once.
    """
    database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
    try:
        # Not one transaction: the log must hold the whole size once, and the pages must be free afterwards.
        database.execute("DROP TABLE IF EXISTS reserve")
        database.execute("CREATE TABLE reserve (filling BLOB)")
        database.execute("INSERT INTO reserve VALUES (randomblob(?))", (size,))
        database.execute("DROP TABLE reserve")
        database.execute("PRAGMA wal_checkpoint(RESTART)")
    except sqlite3.OperationalError as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        LOG.warning("%s: %.0f MB cannot be reserved (%s); free some space there", path, size / 1e6, error)


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    """Bring the database to the current version, and record which msc-edge writes it."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise UsageError(_too_new(database, path, version))
    if version == len(_MIGRATIONS):
        with suppress(sqlite3.OperationalError):  # a full disk must not prevent the start
            database.execute(
                "UPDATE metadata SET value = ? WHERE name = 'msc_edge_version' AND value <> ?", (__version__,) * 2
            )
        return
    if version > 0:
        _back_up(database, path.with_name(f"{path.name}.version-{version}.backup"))
    _create(database, version=version)


def _create(database: sqlite3.Connection, *, version: int) -> None:
    """Bring a database from `version`, 0 for an empty one, to the current version."""
    # Not executescript, which would commit the transaction.
    database.execute("BEGIN IMMEDIATE")
    for migrate in _MIGRATIONS[version:]:
        migrate(database)
    database.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
    database.execute("INSERT INTO metadata VALUES ('msc_edge_version', ?)", (__version__,))
    database.execute("COMMIT")


def _too_new(database: sqlite3.Connection, path: Path, version: int) -> str:
    try:
        (writer,) = database.execute("SELECT value FROM metadata WHERE name = 'msc_edge_version'").fetchone()
    except (sqlite3.Error, TypeError):  # the newer version has another table, or no such row
        writer = ""
    return (
        f"{path}: written by msc-edge {writer or 'of a newer version'} (database version {version}); msc-edge "
        f"{__version__} reads versions up to {len(_MIGRATIONS)}. Install msc-edge {writer or 'in a newer version'}, "
        "or give this stream another `state` folder"
    )


def _back_up(database: sqlite3.Connection, path: Path) -> None:
    with written_whole(path) as partial:
        backup = sqlite3.connect(partial)
        try:
            database.backup(backup)
        finally:
            backup.close()


def _version_1(database: sqlite3.Connection) -> None:
    """The tables of msc-edge 0.1.0."""
    database.execute("""
        CREATE TABLE outbox (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            channel TEXT NOT NULL,
            id TEXT NOT NULL,
            body BLOB NOT NULL,
            recorded REAL NOT NULL,   -- time.time()
            due REAL NOT NULL,        -- time.time() of the next attempt
            attempts INTEGER NOT NULL DEFAULT 0,
            UNIQUE (channel, id)
        ) STRICT
    """)
    database.execute("CREATE INDEX outbox_of_channel ON outbox (channel, number)")
    database.execute("""
        CREATE TABLE done (
            folder TEXT NOT NULL,
            path BLOB NOT NULL,       -- relative to the folder, in the encoding of the file system
            size INTEGER NOT NULL,
            modified INTEGER NOT NULL, -- nanoseconds
            PRIMARY KEY (folder, path)
        ) STRICT, WITHOUT ROWID
    """)


def _version_2(database: sqlite3.Connection) -> None:
    """Kind and source of each event as columns; `done` becomes `processed_files`; metadata."""
    database.execute("ALTER TABLE outbox ADD COLUMN kind TEXT NOT NULL DEFAULT ''")
    database.execute("ALTER TABLE outbox ADD COLUMN source TEXT")
    database.execute("""
        UPDATE outbox SET
            kind = json_extract(CAST(body AS TEXT), '$.kind'),
            source = json_extract(CAST(body AS TEXT), '$.source')
    """)
    database.execute("ALTER TABLE done RENAME TO processed_files")
    database.execute("CREATE TABLE metadata (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID")


def _version_3(database: sqlite3.Connection) -> None:
    """What distinguishes a file from another one of the same name, size and date."""
    database.execute("ALTER TABLE processed_files ADD COLUMN changed INTEGER NOT NULL DEFAULT 0")  # nanoseconds
    database.execute("ALTER TABLE processed_files ADD COLUMN digest BLOB NOT NULL DEFAULT x''")


_MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_version_1, _version_2, _version_3)
"""Number n brings a database from version n to n + 1."""
