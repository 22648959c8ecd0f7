"""The SQLite database of an additions file: where it is, its tables, and what damage looks like."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msc_edge.errors import KitError, OutputError, UnreadableImageError, UsageError
from msc_edge.kit.opening import KitIdentity
from msc_edge.runtime.sqlite_errors import SQLITE_ERRORS, is_damage, remedy_of

_FIRST_FORMAT = 1
_FORMAT = 2  # of a file with station limits; without any, earlier versions of msc-edge can use it
_TIMEOUT = 5.0  # seconds to wait for another process that writes
_SCHEMA = """
CREATE TABLE kit (format INTEGER NOT NULL, sha256 TEXT NOT NULL, name TEXT NOT NULL);
CREATE TABLE image (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, time TEXT NOT NULL, by TEXT NOT NULL,
    reason TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, content BLOB NOT NULL, thumbnail BLOB NOT NULL,
    undone_time TEXT, undone_by TEXT, undone_reason TEXT
);
CREATE TABLE learned (
    image INTEGER NOT NULL REFERENCES image, model TEXT NOT NULL, embedding BLOB NOT NULL, patches BLOB NOT NULL,
    PRIMARY KEY (image, model)
);
"""
_LIMITS = """
CREATE TABLE IF NOT EXISTS limits (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL,
    learned TEXT NOT NULL, calibrations TEXT NOT NULL, undone_time TEXT, undone_by TEXT, undone_reason TEXT
)
"""


def additions_path(kit: Path, identity: KitIdentity) -> Path:
    """Where the additions of a kit are, a folder or a .zip: beside the kit itself, not beside a link to it."""
    kit = kit.resolve()
    return kit.with_name(f"{kit.name}{_ending(identity)}")


def renamed_additions(kit: Path, identity: KitIdentity) -> Path | None:
    """The additions of this kit under the name that it had before it was renamed; None where there are none."""
    path = additions_path(kit, identity)
    if path.exists():
        return None
    others = sorted(path.parent.glob(f"*{_ending(identity)}"))
    return next(
        (each for each in others if not each.with_name(each.name.removesuffix(_ending(identity))).exists()), None
    )


def _ending(identity: KitIdentity) -> str:
    return f".additions-{identity.sha256[:12]}.sqlite"


def connected(path: Path, identity: KitIdentity, *, create: bool = False) -> sqlite3.Connection:
    """Open the database at `path`, or create it.

    UsageError where it belongs to another kit, or a newer msc-edge wrote it; KitError where it is damaged; OutputError
    where it cannot be read or written.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, and would be the file with what was learned; move it away")
    with reported(path):
        database = sqlite3.connect(path, timeout=_TIMEOUT, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE" if create else "BEGIN")
            if create and not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    database.execute(statement)
                kit = (_FIRST_FORMAT, identity.sha256, identity.name)
                database.execute("INSERT INTO kit VALUES (?, ?, ?)", kit)
            found = database.execute("SELECT format, sha256, name FROM kit").fetchone()
            database.execute("COMMIT")
            _refuse_other(path, found, identity)
        except BaseException:
            database.close()
            raise
    return database


def _refuse_other(path: Path, found: tuple[int, str, str] | None, identity: KitIdentity) -> None:
    with undamaged(path):
        if found is None:
            raise ValueError("it names no kit")
        version, sha256, name = found
        if version > _FORMAT:
            raise UsageError(f"{path}: format {version} is of a newer msc-edge; install that one")
    if sha256 != identity.sha256:
        raise UsageError(
            f"{path}: belongs to another kit ({name!r}, SHA-256 {sha256[:12]}); move it away, or rename it back"
        )


def prepare_limits(database: sqlite3.Connection) -> None:
    """Let the file have station limits; within a transaction."""
    database.execute(_LIMITS)
    database.execute("UPDATE kit SET format = ?", (_FORMAT,))


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into a KitError where the file is damaged, and into an OutputError otherwise."""
    try:
        yield
    except SQLITE_ERRORS as error:
        if is_damage(error):
            raise _damaged(path, error) from error
        raise OutputError(f"{path}: cannot be used ({error}); {remedy_of(error)}") from error


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Turn what damaged content raises into a KitError."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, UnreadableImageError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> KitError:
    reason = str(error).partition("\n")[0]
    return KitError(
        f"{path}: what this station has learned is damaged ({reason}); copy the file from a backup, or move it away: "
        "the kit is then used alone"
    )
