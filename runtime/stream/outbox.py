"""Events on their way to the channels: in the state on disk, and in memory while the disk takes nothing.

A full disk must not silence alarms: what waits in memory is delivered from there.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.events import Event, Waiting
from msc_edge.runtime.stream.frame import ProcessedFile
from msc_edge.runtime.stream.logs import FailureLog
from msc_edge.runtime.stream.state import State

_MAX_IN_MEMORY = 16e6  # bytes: some hours of rejects
_FULL = 0.9  # share of the outbox from which events are about to be dropped


class Outbox:
    """The backlog of all channels. Safe to use from several threads. No method raises an error of the disk."""

    def __init__(
        self, state: State, *, on_added: Callable[[], None] = lambda: None, max_in_memory: float = _MAX_IN_MEMORY
    ) -> None:
        """`on_added` is called after events were added. `max_in_memory`: bytes; the oldest beyond it are dropped."""
        self._state = state
        self._memory = State.in_memory(state.channels, max_bytes=max_in_memory)
        self._on_added = on_added
        self._lock = threading.Lock()
        # Acknowledged, and still on disk because it is full: channel -> ids that are not to be sent again.
        self._acknowledged: dict[str, set[str]] = {channel: set() for channel in state.channels}
        self._failures = FailureLog("the state can be written again")

    def put(self, events: Sequence[Event], file: ProcessedFile | None = None) -> None:
        """Add events, and mark a file as processed, in one transaction: on disk, or in memory until it takes them."""
        with self._lock:
            self._memory.record(events, file=file)
            self._write()
        if events:
            self._on_added()

    def retry(self) -> None:
        """Try to write what waits in memory, and to remove what was acknowledged."""
        with self._lock:
            self._write()

    def waiting(self, channel: str, *, limit: int) -> list[Waiting]:
        """The oldest events of a channel that are due, at most `limit`."""
        with self._lock:
            skipped = set(self._acknowledged[channel])
            found: list[Waiting] = []
            try:
                found = self._state.waiting(channel, limit=limit + len(skipped))
            except OutputError as error:
                self._report_failure(error)
            # Negative: the numbers of the two states must differ.
            for each in self._memory.waiting(channel, limit=limit + len(skipped)):
                found.append(replace(each, number=-each.number))
        return [each for each in found if each.id not in skipped][:limit]

    def remove(self, channel: str, ids: Sequence[str]) -> None:
        """Remove events that a channel has acknowledged."""
        if not ids:
            return
        with self._lock:
            self._acknowledged[channel].update(set(ids) - self._memory.remove(channel, ids))
            self._write()

    def postpone(self, channel: str, id: str, *, seconds: float) -> None:
        """Retry an event after `seconds` at the earliest; others go first."""
        with self._lock:
            self._memory.postpone(channel, id, seconds=seconds)
            try:
                self._state.postpone(channel, id, seconds=seconds)
            except OutputError as error:
                self._report_failure(error)

    def _write(self) -> None:
        """Bring the disk up to date. Call it with the lock held."""
        try:
            for channel, ids in self._acknowledged.items():  # first: it makes room for the others
                self._state.remove(channel, ids)
                ids.clear()
            self._memory.move_to(self._state)
        except OutputError as error:
            self._report_failure(error)
        else:
            self._failures.recovered()

    def _report_failure(self, error: OutputError) -> None:
        self._failures.report_failure(f"{error}; events wait in memory, and are delivered from there")

    def take_dropped(self) -> int:
        """Number of events dropped since the last call: too old, too many, or too long without a disk."""
        dropped = self._memory.take_dropped()
        try:
            dropped += self._state.take_dropped()
        except OutputError as error:
            self._report_failure(error)
        return dropped

    def backlog(self) -> dict[str, int]:
        """Number of events that wait for each channel, those in memory included."""
        with self._lock:
            on_disk, in_memory = self._state.backlog(), self._memory.backlog()
            return {
                channel: on_disk[channel] + in_memory[channel] - len(ids) for channel, ids in self._acknowledged.items()
            }

    def unwritten(self) -> dict[str, int]:
        """Number of events that are only in memory, by kind: they are lost when the process ends."""
        with self._lock:
            return self._memory.kinds()

    @property
    def is_full(self) -> bool:
        """Whether events are about to be dropped, or cannot be written, or use the reserve of the disk."""
        return self._failures.failing or self._state.used_share > _FULL or self._state.disk_is_full
