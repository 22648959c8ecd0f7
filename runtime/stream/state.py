"""What must survive a restart, in one SQLite file: events that wait to be delivered, and image files that are done.

Both lie in one database so that a file is marked as done in the transaction that puts its events into the outbox:
after `kill -9` or a power cut either both happened or neither. WAL with synchronous=FULL: what was recorded is on disk.
The database stays folder_lock while a stream has it, so that no two work on one state.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.database import identity, open_database
from msc_edge.runtime.stream.events import Event

FILE = "state.sqlite"
_LONGEST_DELAY = 3600.0  # seconds; nobody postpones an event for longer


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event in the outbox of one channel."""

    number: int
    id: str
    body: bytes
    """JSON, UTF-8."""
    attempts: int
    """How often its delivery has failed."""


@dataclass(frozen=True, slots=True)
class DoneFile:
    """An image file of a watched folder, as it was when it was scored."""

    folder: str
    path: bytes
    size: int
    modified: int


class State:
    """The database. Safe to use from several threads. Close it, or use it as a context manager."""

    def __init__(
        self, database: sqlite3.Connection, path: Path, *, channels: Sequence[str], max_bytes: float, max_age: float
    ) -> None:
        """Use State.open."""
        self._database = database
        self._path = path
        self._file = identity(path)
        self._channels = tuple(channels)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = threading.Lock()
        self._lost = 0
        # Kept in mind: counting a hundred thousand events four times a second would take more than scoring.
        self._waiting: dict[str, tuple[int, int]] = {
            name: (count, size)
            for name, count, size in database.execute(
                "SELECT channel, count(*), sum(length(body)) FROM outbox GROUP BY channel"
            )
        }

    @classmethod
    def open(
        cls, folder: Path, *, channels: Sequence[str] = (), max_bytes: float = 200e6, max_age: float = 7 * 86400
    ) -> Self:
        """Open the state in `folder`, or begin one there.

        `channels`: each event goes to each of them. What waits for a channel that is not among them is kept until it
        is too old. Raises UsageError when another process has it, OutputError when it cannot be written.
        """
        path = folder / FILE
        return cls(open_database(path), path, channels=channels, max_bytes=max_bytes, max_age=max_age)

    def record(self, events: Iterable[Event], *, done: DoneFile | None = None) -> None:
        """Put events into the outbox of each channel and mark a file as done, together and durably.

        An event that is there already, by its id, is not put there again. OutputError when the disk does not take it.
        """
        moment = time.time()
        rows = [
            (channel, event.id, event.model_dump_json().encode(), moment, moment)
            for event in events
            for channel in self._channels
        ]
        if not rows and done is None:
            return
        with self._transaction() as database:
            for row in rows:
                added = database.execute(
                    "INSERT OR IGNORE INTO outbox (channel, id, body, recorded, due) VALUES (?, ?, ?, ?, ?)", row
                ).rowcount
                self._count(row[0], added, len(row[2]) * added)
            if done:
                database.execute(
                    "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?)",
                    (done.folder, done.path, done.size, done.modified),
                )
            while self._bytes > self._max_bytes and self._drop_oldest(database):
                self._lost += 1

    def waiting(self, channel: str, *, most: int) -> list[Waiting]:
        """The oldest events of a channel that are due."""
        moment = time.time()
        with self._reading() as database:
            # What is due long from now was recorded while the clock was wrong.
            rows = database.execute(
                "SELECT number, id, body, attempts FROM outbox "
                "WHERE channel = ? AND (due <= ? OR due > ?) ORDER BY number LIMIT ?",
                (channel, moment, moment + _LONGEST_DELAY, most),
            ).fetchall()
        return [Waiting(*row) for row in rows]

    def delivered(self, numbers: Sequence[int]) -> None:
        """Remove events that were acknowledged."""
        if not numbers:
            return
        with self._transaction() as database:
            for number in numbers:
                self._remove(database, "number = ?", number)

    def postpone(self, number: int, *, seconds: float) -> None:
        """Try an event again only after so many seconds; others go first."""
        with self._transaction() as database:
            database.execute(
                "UPDATE outbox SET due = ?, attempts = attempts + 1 WHERE number = ?", (time.time() + seconds, number)
            )

    def depth(self) -> dict[str, int]:
        """Events that wait, for each channel."""
        with self._lock:
            return {channel: self._waiting.get(channel, (0, 0))[0] for channel in self._channels}

    @property
    def fullness(self) -> float:
        """Share of the outbox that is in use, 0 to 1."""
        with self._lock:
            return min(1.0, self._bytes / self._max_bytes)

    def take_lost(self) -> int:
        """Drop what is too old, and tell how many events were dropped since this was asked last."""
        expired = time.time() - self._max_age
        with self._transaction() as database:
            while self._drop_oldest(database, before=expired):
                self._lost += 1
        lost, self._lost = self._lost, 0
        return lost

    def is_done(self, file: DoneFile) -> bool:
        """Whether this very file, unchanged, was scored or reported."""
        with self._reading() as database:
            found = database.execute(
                "SELECT size, modified FROM done WHERE folder = ? AND path = ?", (file.folder, file.path)
            ).fetchone()
        return found == (file.size, file.modified)

    def done_in(self, folder: str) -> dict[bytes, tuple[int, int]]:
        """All files of a folder that are done: path -> (size, modified)."""
        with self._reading() as database:
            rows = database.execute("SELECT path, size, modified FROM done WHERE folder = ?", (folder,)).fetchall()
        return {path: (size, modified) for path, size, modified in rows}

    def forget(self, folder: str, paths: Iterable[bytes]) -> None:
        """Forget files that are not there any more."""
        with self._transaction() as database:
            database.executemany("DELETE FROM done WHERE folder = ? AND path = ?", [(folder, path) for path in paths])

    def close(self) -> None:
        """Close the database; it is whole at any moment, closed or not."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise OutputError(f"{self._path}: cannot be read ({error}); check the disk") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            before = dict(self._waiting), self._lost
            self._put_back()
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as error:
                self._waiting, self._lost = before
                with suppress(sqlite3.Error):  # it was closed meanwhile, or the disk fails altogether
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
                    remedy = "free some space there" if full else "check the disk"
                    raise OutputError(f"{self._path}: cannot be written ({error}); {remedy}") from error
                raise

    def _put_back(self) -> None:
        """Where somebody has removed the file, write it anew: SQLite would go on in one that nobody can find again."""
        if identity(self._path) == self._file:
            return
        again = open_database(self._path)
        try:
            self._database.backup(again)
        except sqlite3.Error as error:
            again.close()
            raise OutputError(f"{self._path}: was removed, and cannot be written anew ({error})") from error
        self._database.close()
        self._database, self._file = again, identity(self._path)

    @property
    def _bytes(self) -> int:
        return sum(size for _, size in self._waiting.values())

    def _count(self, channel: str, events: int, size: int) -> None:
        count, before = self._waiting.get(channel, (0, 0))
        self._waiting[channel] = count + events, before + size

    def _remove(self, database: sqlite3.Connection, which: str, value: float) -> bool:
        """Remove the events of a condition; whether there were any."""
        gone = database.execute(
            f"DELETE FROM outbox WHERE {which} RETURNING channel, length(body)", (value,)
        ).fetchall()
        for channel, size in gone:
            self._count(channel, -1, -size)
        return bool(gone)

    def _drop_oldest(self, database: sqlite3.Connection, *, before: float = float("inf")) -> bool:
        """Remove the oldest event, if it was recorded before a moment; whether it was."""
        return self._remove(database, "number = (SELECT min(number) FROM outbox) AND recorded < ?", before)
