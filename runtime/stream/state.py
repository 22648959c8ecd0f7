"""What must survive a restart, in one SQLite file: events that wait to be delivered, and processed image files.

One database holds both, so that one transaction marks a file as processed and puts its event into the outbox. After
`kill -9` or a power cut either both are recorded or neither. WAL with synchronous=FULL: what was recorded is on disk.
The database stays locked while a stream uses it, so that no two streams share one state.
"""

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, Self

from msc_edge.errors import OutputError
from msc_edge.runtime.sqlite_errors import SQLITE_ERRORS, remedy_of
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.database import memory_database, open_database
from msc_edge.runtime.stream.events import Event, Waiting
from msc_edge.runtime.stream.frame import ProcessedFile

FILE = "state.sqlite"
_MOVED_AT_ONCE = 100
_LONGEST_DELAY = 3600.0  # seconds; no event is postponed for longer


class State:
    """The database. Safe to use from several threads. Close it, or use it as a context manager."""

    def __init__(
        self,
        database: sqlite3.Connection,
        path: Path,
        *,
        channels: Sequence[str],
        max_bytes: float,
        max_age: float,
        clock: Clock,
        reserve: int = 0,
    ) -> None:
        """Use State.open or State.in_memory."""
        self._database = database
        self._path = path
        self.channels = tuple(channels)
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._clock = clock
        self._reserve = reserve
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
        cls,
        folder: Path,
        *,
        channels: Sequence[str] = (),
        max_bytes: float = 200e6,
        max_age: float = 7 * 86400,
        clock: Clock | None = None,
        reserve: int = 0,
    ) -> Self:
        """Open the state in `folder`, or create it.

        `channels`: each event goes to each of them. Events of other channels are kept until they are older than
        `max_age` seconds by `clock`. `max_bytes`: of all events together. `reserve`: bytes of the disk for events that
        come while it is full. UsageError when another process uses this state or a newer msc-edge wrote it, OutputError
        when it cannot be written.
        """
        database = open_database(path := folder / FILE, reserve=reserve)
        try:
            return cls(
                database,
                path,
                channels=channels,
                max_bytes=max_bytes,
                max_age=max_age,
                clock=clock or Clock(),
                reserve=reserve,
            )
        except BaseException:
            database.close()
            raise

    @classmethod
    def in_memory(cls, channels: Sequence[str], *, max_bytes: float) -> Self:
        """A state that no disk holds, and that ends with the process."""
        database, path = memory_database(), Path(":memory:")
        return cls(database, path, channels=channels, max_bytes=max_bytes, max_age=float("inf"), clock=Clock())

    def record(self, events: Iterable[Event], *, file: ProcessedFile | None = None) -> None:
        """Put events into the outbox of each channel and mark a file as processed, together and durably.

        An event whose id is in the outbox already is ignored. OutputError when the disk does not take it.
        """
        moment = time.time()
        rows = [
            (channel, event.id, event.kind, event.source, event.model_dump_json().encode(), moment, moment, 0)
            for event in events
            for channel in self.channels
        ]
        self._insert(rows, [astuple(file)] if file else [])

    def move_to(self, other: "State") -> None:
        """Move everything into another state, in order, some at a time.

        OutputError when the other one takes no more; the rest stays here. Nothing may be recorded or removed meanwhile.
        """
        while True:
            with self._reading() as database:
                rows = database.execute(
                    "SELECT channel, id, kind, source, body, recorded, due, attempts FROM outbox "
                    "ORDER BY number LIMIT ?",
                    (_MOVED_AT_ONCE,),
                ).fetchall()
                files = database.execute("SELECT * FROM processed_files LIMIT ?", (_MOVED_AT_ONCE,)).fetchall()
            if not rows and not files:
                return
            other._insert(rows, files)
            with self._transaction() as database:
                for channel, id, *_ in rows:
                    self._delete(database, "channel = ? AND id = ?", channel, id)
                database.executemany(
                    "DELETE FROM processed_files WHERE folder = ? AND path = ?",
                    [(folder, path) for folder, path, *_ in files],
                )

    def _insert(self, rows: Sequence[Sequence[Any]], files: Sequence[Sequence[Any]]) -> None:
        if not rows and not files:
            return
        with self._transaction() as database:
            for row in rows:
                channel, _, _, _, body, *_ = row
                added = database.execute(
                    "INSERT OR IGNORE INTO outbox (channel, id, kind, source, body, recorded, due, attempts) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                ).rowcount
                self._count(channel, added, len(body) * added)
            database.executemany("INSERT OR REPLACE INTO processed_files VALUES (?, ?, ?, ?, ?, ?)", files)
            while self._bytes > self.max_bytes and self._drop_oldest(database):
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

    def remove(self, channel: str, ids: Iterable[str]) -> set[str]:
        """Remove events that a channel has acknowledged; those that were here."""
        if not (wanted := list(ids)):
            return set()
        with self._transaction() as database:
            return {id for id in wanted if self._delete(database, "channel = ? AND id = ?", channel, id)}

    def postpone(self, channel: str, id: str, *, seconds: float) -> None:
        """Retry an event after `seconds` at the earliest; others go first."""
        with self._transaction() as database:
            database.execute(
                "UPDATE outbox SET due = ?, attempts = attempts + 1 WHERE channel = ? AND id = ?",
                (time.time() + seconds, channel, id),
            )

    def backlog(self) -> dict[str, int]:
        """Number of events in the outbox of each channel."""
        with self._lock:
            return {channel: self._sizes.get(channel, (0, 0))[0] for channel in self.channels}

    def kinds(self) -> dict[str, int]:
        """Number of events of each kind, whatever number of channels they wait for."""
        with self._reading() as database:
            return dict(database.execute("SELECT kind, count(DISTINCT id) FROM outbox GROUP BY kind").fetchall())

    @property
    def disk_is_full(self) -> bool:
        """Whether the disk has less free space than the reserve, which is then in use or will be soon."""
        try:
            return shutil.disk_usage(self._path.parent).free < self._reserve
        except OSError:  # the disk is away
            return True

    @property
    def folder(self) -> Path:
        """Where the database is."""
        return self._path.parent

    @property
    def used_share(self) -> float:
        """Used share of the outbox, in [0, 1]."""
        with self._lock:
            return min(1.0, self._bytes / self.max_bytes)

    def take_dropped(self) -> int:
        """Drop events that are too old. Number of events dropped since the last call, for age or size."""
        with self._transaction() as database:
            while self._oldest_age(database) > self.max_age and self._drop_oldest(database):
                self._dropped += 1
            dropped, self._dropped = self._dropped, 0
        return dropped

    def processed_files(self, folder: str) -> dict[bytes, ProcessedFile]:
        """The processed files of a folder, by path. Those of older versions have neither ctime nor digest."""
        with self._reading() as database:
            rows = database.execute("SELECT * FROM processed_files WHERE folder = ?", (folder,)).fetchall()
        return {file.path: file for file in (ProcessedFile(*row) for row in rows)}

    def update(self, file: ProcessedFile) -> None:
        """Set the ctime of a processed file. Nothing happens if it is not marked: its row may wait for a disk."""
        with self._transaction() as database:
            database.execute(
                "UPDATE processed_files SET changed = ? WHERE folder = ? AND path = ? AND digest = ?",
                (file.changed, file.folder, file.path, file.digest),
            )

    def forget(self, folder: str, paths: Iterable[bytes]) -> None:
        """Forget processed files that no longer exist."""
        with self._transaction() as database:
            keys = [(folder, path) for path in paths]
            database.executemany("DELETE FROM processed_files WHERE folder = ? AND path = ?", keys)

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
                    raise OutputError(f"{self._path}: cannot be written ({error}); {remedy_of(error)}") from error
                raise

    @property
    def _bytes(self) -> int:
        return sum(size for _, size in self._sizes.values())

    def _count(self, channel: str, events: int, size: int) -> None:
        count, before = self._sizes.get(channel, (0, 0))
        self._sizes[channel] = count + events, before + size

    def _delete(self, database: sqlite3.Connection, which: str, *values: str) -> bool:
        """Delete the events that meet a condition; whether there were any."""
        deleted = database.execute(
            f"DELETE FROM outbox WHERE {which} RETURNING channel, length(body)", values
        ).fetchall()
        for channel, size in deleted:
            self._count(channel, -1, -size)
        return bool(deleted)

    def _drop_oldest(self, database: sqlite3.Connection) -> bool:
        """Delete the oldest event; whether there was one."""
        return self._delete(database, "number = (SELECT min(number) FROM outbox)")

    def _oldest_age(self, database: sqlite3.Connection) -> float:
        """Seconds since the oldest event was recorded; negative when there is none."""
        row = database.execute("SELECT recorded FROM outbox ORDER BY number LIMIT 1").fetchone()
        return self._clock.age(row[0]) if row else -1.0
