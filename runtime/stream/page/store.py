"""The SQLite file of the page: rejects and warnings, marks, counts, and thumbnails of normal images.

`PRAGMA user_version` is its version. It belongs to one process of the page at a time.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msc_edge.errors import OutputError, UsageError, writing
from msc_edge.runtime.sqlite_errors import SQLITE_ERRORS, remedy_of

FILE = "page.sqlite"


class Store:
    """The database. Safe to use from several threads. Close it."""

    def __init__(self, folder: Path) -> None:
        """Open the file in the state folder, or create it. OutputError, or UsageError for that of a newer version."""
        self.path = folder / FILE
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=2)
            self._database.row_factory = sqlite3.Row
            self._database.execute("PRAGMA journal_mode = WAL")
            self._migrate()
        except SQLITE_ERRORS as error:
            raise OutputError(
                f"{self.path}: cannot be used ({error}); check the disk, or move the file away for an empty gallery"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The database, for one thread at a time. OutputError when it fails."""
        with self._lock:
            try:
                yield self._database
            except SQLITE_ERRORS as error:
                raise OutputError(f"{self.path}: cannot be read ({error}); {remedy_of(error)}") from error

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """All or nothing. `durable`: on disk afterwards; else a power cut may take it. OutputError when it fails."""
        with self._lock:
            try:
                self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except SQLITE_ERRORS as error:
                raise OutputError(f"{self.path}: cannot be written ({error}); {remedy_of(error)}") from error
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _migrate(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise UsageError(
                f"{self.path}: written by a newer msc-edge (version {version} of the file); this one reads versions up "
                f"to {len(_MIGRATIONS)}. Install the newer one, or move the file away: the gallery is then empty"
            )
        if version == len(_MIGRATIONS):
            return
        self._database.execute("BEGIN IMMEDIATE")
        for migrate in _MIGRATIONS[version:]:
            migrate(self._database)
        self._database.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        self._database.execute("COMMIT")


def _version_1(database: sqlite3.Connection) -> None:
    database.execute("""
        CREATE TABLE findings (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,       -- of the decision, as in rows and events
            source TEXT NOT NULL,
            frame INTEGER NOT NULL,
            time REAL NOT NULL,            -- of capture, seconds since 1970
            verdict TEXT NOT NULL,         -- warn or reject
            score REAL NOT NULL,
            limit_score REAL NOT NULL,
            image_score REAL NOT NULL,
            patch_score REAL,
            p_value REAL,
            decided_by TEXT,               -- image or patch
            is_least_p_value INTEGER NOT NULL,
            calibration_images INTEGER,
            independent INTEGER,
            regions TEXT NOT NULL,         -- JSON
            nearest TEXT NOT NULL,         -- JSON: row, path, distance; the nearest first
            model TEXT NOT NULL,
            kit TEXT NOT NULL,             -- SHA-256 of the manifest
            height INTEGER NOT NULL,       -- of the frame, pixels
            width INTEGER NOT NULL,
            image TEXT,                    -- where the frame is saved
            path TEXT,                     -- of the image file that was scored
            mark TEXT,                     -- false_alarm or defect: the last mark
            defect TEXT                    -- the class of a defect
        ) STRICT
    """)
    database.execute("CREATE INDEX findings_by_time ON findings (time, number)")
    database.execute("CREATE INDEX findings_by_mark ON findings (mark, defect)")
    # Each change of a mark is a row; rows are never changed or removed.
    database.execute("""
        CREATE TABLE marks (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            finding TEXT NOT NULL,         -- id of the decision
            action TEXT NOT NULL,          -- false_alarm, defect or withdrawn
            defect TEXT,                   -- the class of a defect
            who TEXT NOT NULL,
            time REAL NOT NULL,            -- seconds since 1970
            source TEXT NOT NULL,
            captured REAL NOT NULL,        -- time of the frame
            verdict TEXT NOT NULL,
            score REAL NOT NULL,
            limit_score REAL NOT NULL,
            image_score REAL NOT NULL,
            patch_score REAL,
            p_value REAL,
            model TEXT NOT NULL,
            kit TEXT NOT NULL,             -- SHA-256 of the manifest
            image TEXT                     -- the copy of the frame that is kept for the mark
        ) STRICT
    """)
    database.execute("CREATE INDEX marks_of_finding ON marks (finding, number)")
    database.execute("""
        CREATE TABLE counts (
            minute INTEGER NOT NULL,       -- seconds since 1970, divided by 60
            source TEXT NOT NULL,
            outcome TEXT NOT NULL,         -- normal, warn, reject or not_scored
            count INTEGER NOT NULL,
            PRIMARY KEY (minute, source, outcome)
        ) STRICT, WITHOUT ROWID
    """)
    database.execute("""
        CREATE TABLE thumbnails (
            kit TEXT NOT NULL,             -- SHA-256 of the manifest
            row INTEGER NOT NULL,          -- of the memory bank
            jpeg BLOB NOT NULL,
            PRIMARY KEY (kit, row)
        ) STRICT
    """)


_MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_version_1,)
"""Number n brings a database from version n to n + 1."""
