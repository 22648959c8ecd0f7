"""Events on their way into the outbox. While the disk takes nothing they wait in memory."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.events import Event
from msc_edge.runtime.stream.frame import ProcessedFile
from msc_edge.runtime.stream.logs import FailureLog
from msc_edge.runtime.stream.state import State

_MAX_IN_MEMORY = 10_000
_FULL = 0.9  # share of the outbox from which events are about to be dropped


class Outbox:
    """Writes events to the state, or keeps them in memory until it can. Safe to use from several threads."""

    def __init__(self, state: State, *, on_recorded: Callable[[], None] = lambda: None) -> None:
        """`on_recorded` is called after events were written."""
        self._state = state
        self._on_recorded = on_recorded
        self._lock = threading.Lock()
        self._unwritten: deque[Event] = deque()
        self._dropped = 0
        self._failures = FailureLog("the state can be written again")

    def put(self, events: Sequence[Event]) -> None:
        """Write events, now or as soon as the disk takes them."""
        if not events:
            return
        with self._lock:
            self._unwritten.extend(events)
            while len(self._unwritten) > _MAX_IN_MEMORY:
                self._unwritten.popleft()
                self._dropped += 1
        self.retry()

    def put_with(self, events: Sequence[Event], file: ProcessedFile) -> bool:
        """Write events and a processed file in one transaction. False when the disk takes neither."""
        try:
            self._state.record(events, file=file)
        except OutputError as error:
            self._report_failure(error)
            return False
        self._failures.recovered()
        if events:
            self._on_recorded()
        return True

    def retry(self) -> None:
        """Try to write the events in memory."""
        with self._lock:
            events = list(self._unwritten)
            if not events:
                return
            try:
                self._state.record(events)
            except OutputError as error:
                self._report_failure(error)
                return
            self._unwritten.clear()
        self._failures.recovered()
        self._on_recorded()

    def _report_failure(self, error: OutputError) -> None:
        self._failures.report_failure(f"{error}; events wait in memory")

    def take_dropped(self) -> int:
        """Number of events dropped since the last call: too old, too many, or too long without a disk."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        try:
            dropped += self._state.take_dropped()
        except OutputError as error:
            self._report_failure(error)
        else:
            if not self._unwritten:
                self._failures.recovered()
        return dropped

    def backlog(self) -> dict[str, int]:
        """Number of events in the outbox of each channel, those in memory included."""
        waiting = self._state.backlog()
        with self._lock:
            unwritten = len(self._unwritten)
        return {channel: count + unwritten for channel, count in waiting.items()}

    @property
    def is_full(self) -> bool:
        """Whether events are about to be dropped, or cannot be written."""
        return self._failures.failing or self._state.used_share > _FULL
