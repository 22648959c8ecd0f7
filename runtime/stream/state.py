"""What must survive a restart, in one SQLite file: events that wait to be delivered, and processed image files.

One database holds both, so that one transaction marks a file as processed and puts its event into the outbox. After
`kill -9` or a power cut either both are recorded or neither. WAL with synchronous=FULL: what was recorded is on disk.
The database stays locked while a stream uses it, so that no two streams share one state.
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
from msc_edge.runtime.stream.database import SQLITE_ERRORS, open_database
from msc_edge.runtime.stream.events import Event
from msc_edge.runtime.stream.frame import ProcessedFile

FILE = "state.sqlite"
_LONGEST_DELAY = 3600.0  # seconds; no event is postponed for longer


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event in the outbox of one channel."""

    number: int
    id: str
    kind: str
    """As in `Event`. An older version of msc-edge may have written kinds that are unknown to this one."""
    source: str | None
    body: bytes
    """JSON, UTF-8, in the schema of the version that recorded the event."""
    attempts: int
    """Number of failed deliveries."""


class State:
    """The database. Safe to use from several threads. Close it, or use it as a context manager."""

    def __init__(
        self, database: sqlite3.Connection, path: Path, *, channels: Sequence[str], max_bytes: float, max_age: float
    ) -> None:
        """Use State.open."""
        self._database = database
        self._path = path
        self._channels = tuple(channels)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = threading.Lock()
        self._dropped = 0
        # Kept in memory: counting a hundred thousand events four times a second would take longer than scoring.
        with self._reading():
            self._sizes: dict[str, tuple[int, int]] = {
                name: (count, size)
                for name, count, size in database.execute(
                    "SELECT channel, count(*), sum(length(body)) FROM outbox GROUP BY channel"
                )
            }

    @classmethod
    def open(
        cls, folder: Path, *, channels: Sequence[str] = (), max_bytes: float = 200e6, max_age: float = 7 * 86400
    ) -> Self:
        """Open the state in `folder`, or create it.

        `channels`: each event goes to each of them. Events of other channels are kept until they are older than
        `max_age` seconds. `max_bytes`: of all events together. Raises UsageError when another process uses this state
        or a newer msc-edge wrote it, OutputError when it cannot be written.
        """
        path = folder / FILE
        database = open_database(path)
        try:
            return cls(database, path, channels=channels, max_bytes=max_bytes, max_age=max_age)
        except BaseException:
            database.close()
            raise

    def record(self, events: Iterable[Event], *, file: ProcessedFile | None = None) -> None:
        """Put events into the outbox of each channel and mark a file as processed, together and durably.

        An event whose id is in the outbox already is ignored. OutputError when the disk does not take it.
        """
        moment = time.time()
        rows = [
            (channel, event.id, event.kind, event.source, event.model_dump_json().encode(), moment, moment)
            for event in events
            for channel in self._channels
        ]
        if not rows and file is None:
            return
        with self._transaction() as database:
            for row in rows:
                channel, _, _, _, body, *_ = row
                added = database.execute(
                    "INSERT OR IGNORE INTO outbox (channel, id, kind, source, body, recorded, due) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                ).rowcount
                self._count(channel, added, len(body) * added)
            if file:
                database.execute(
                    "INSERT OR REPLACE INTO processed_files VALUES (?, ?, ?, ?)",
                    (file.folder, file.path, file.size, file.modified),
                )
                database.execute(
                    "INSERT OR REPLACE INTO file_contents VALUES (?, ?, ?, ?)",
                    (file.folder, file.path, file.changed, file.digest),
                )
            while self._bytes > self._max_bytes and self._drop_oldest(database):
                self._dropped += 1

    def waiting(self, channel: str, *, limit: int) -> list[Waiting]:
        """The oldest events of a channel that are due, at most `limit`."""
        moment = time.time()
        with self._reading() as database:
            # An event that is due in the far future was recorded while the clock was wrong.
            rows = database.execute(
                "SELECT number, id, kind, source, body, attempts FROM outbox "
                "WHERE channel = ? AND (due <= ? OR due > ?) ORDER BY number LIMIT ?",
                (channel, moment, moment + _LONGEST_DELAY, limit),
            ).fetchall()
        return [Waiting(*row) for row in rows]

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove events that were acknowledged."""
        if not numbers:
            return
        with self._transaction() as database:
            for number in numbers:
                self._delete(database, "number = ?", number)

    def postpone(self, number: int, *, seconds: float) -> None:
        """Retry an event after `seconds` at the earliest; others go first."""
        with self._transaction() as database:
            database.execute(
                "UPDATE outbox SET due = ?, attempts = attempts + 1 WHERE number = ?", (time.time() + seconds, number)
            )

    def backlog(self) -> dict[str, int]:
        """Number of events in the outbox of each channel."""
        with self._lock:
            return {channel: self._sizes.get(channel, (0, 0))[0] for channel in self._channels}

    @property
    def used_share(self) -> float:
        """Used share of the outbox, in [0, 1]."""
        with self._lock:
            return min(1.0, self._bytes / self._max_bytes)

    def take_dropped(self) -> int:
        """Drop events that are too old. Number of events dropped since the last call, for age or size."""
        expired = time.time() - self._max_age
        with self._transaction() as database:
            while self._drop_oldest(database, before=expired):
                self._dropped += 1
            dropped, self._dropped = self._dropped, 0
        return dropped

    def processed_files(self, folder: str) -> dict[bytes, tuple[int, int]]:
        """The processed files of a folder: path -> (size in bytes, date in nanoseconds)."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT path, size, modified FROM processed_files WHERE folder = ?", (folder,)
            ).fetchall()
        return {path: (size, modified) for path, size, modified in rows}

    def file_contents(self, folder: str) -> dict[bytes, tuple[int, bytes]]:
        """The processed files of a folder: path -> (ctime in nanoseconds, digest). Not those of older versions."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT path, changed, digest FROM file_contents WHERE folder = ?", (folder,)
            ).fetchall()
        return {path: (changed, digest) for path, changed, digest in rows}

    def forget(self, folder: str, paths: Iterable[bytes]) -> None:
        """Forget processed files that no longer exist."""
        with self._transaction() as database:
            keys = [(folder, path) for path in paths]
            database.executemany("DELETE FROM processed_files WHERE folder = ? AND path = ?", keys)
            database.executemany("DELETE FROM file_contents WHERE folder = ? AND path = ?", keys)

    def close(self) -> None:
        """Close the database. It is consistent at any time, closed or not."""
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
            except SQLITE_ERRORS as error:
                raise OutputError(f"{self._path}: cannot be read ({error}); check the disk") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            before = dict(self._sizes), self._dropped
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as error:
                self._sizes, self._dropped = before
                with suppress(sqlite3.Error):  # the database was closed, or the disk fails altogether
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                if isinstance(error, SQLITE_ERRORS):
                    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
                    remedy = "free some space there" if full else "check the disk"
                    raise OutputError(f"{self._path}: cannot be written ({error}); {remedy}") from error
                raise

    @property
    def _bytes(self) -> int:
        return sum(size for _, size in self._sizes.values())

    def _count(self, channel: str, events: int, size: int) -> None:
        count, before = self._sizes.get(channel, (0, 0))
        self._sizes[channel] = count + events, before + size

    def _delete(self, database: sqlite3.Connection, which: str, value: float) -> bool:
        """Delete the events that meet a condition; whether there were any."""
        deleted = database.execute(
            f"DELETE FROM outbox WHERE {which} RETURNING channel, length(body)", (value,)
        ).fetchall()
        for channel, size in deleted:
            self._count(channel, -1, -size)
        return bool(deleted)

    def _drop_oldest(self, database: sqlite3.Connection, *, before: float = float("inf")) -> bool:
        """Delete the oldest event if it was recorded before a time; whether it was."""
        return self._delete(database, "number = (SELECT min(number) FROM outbox) AND recorded < ?", before)
