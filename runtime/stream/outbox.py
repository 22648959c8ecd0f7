"""Events on their way into the outbox. While the disk takes nothing they wait in memory, and are tried again."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.events import Event
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.state import DoneFile, State

_MOST_IN_MEMORY = 10_000


class Outbox:
    """The outbox as the stream sees it. Safe to use from several threads."""

    def __init__(self, state: State, *, recorded: Callable[[], None] = lambda: None) -> None:
        """`recorded` is called when there is a new event."""
        self._state = state
        self._recorded = recorded
        self._lock = threading.Lock()
        self._unwritten: deque[Event] = deque()
        self._lost = 0
        self._full = False

    def put(self, events: Sequence[Event]) -> None:
        """Record events, now or as soon as the disk takes them."""
        if not events:
            return
        with self._lock:
            self._unwritten.extend(events)
            while len(self._unwritten) > _MOST_IN_MEMORY:
                self._unwritten.popleft()
                self._lost += 1
        self.retry()

    def put_with(self, events: Sequence[Event], done: DoneFile) -> bool:
        """Record events and a finished file in one transaction. False when the disk does not take it: then neither."""
        try:
            self._state.record(events, done=done)
        except OutputError as error:
            self._say(error)
            return False
        self._recovered()
        if events:
            self._recorded()
        return True

    def retry(self) -> None:
        """Try to record what waits in memory."""
        with self._lock:
            events = list(self._unwritten)
            if not events:
                return
            try:
                self._state.record(events)
            except OutputError as error:
                self._say(error)
                return
            self._unwritten.clear()
        self._recovered()
        self._recorded()

    def _say(self, error: OutputError) -> None:
        if not self._full:
            LOG.error("%s; events wait in memory until then", error)
        self._full = True

    def _recovered(self) -> None:
        if self._full:
            LOG.info("the state can be written again")
        self._full = False

    def take_lost(self) -> int:
        """Events that were dropped since this was asked last: too old, too many, or too long without a disk."""
        with self._lock:
            lost, self._lost = self._lost, 0
        try:
            lost += self._state.take_lost()
        except OutputError as error:
            self._say(error)
        else:
            if not self._unwritten:
                self._recovered()
        return lost

    def depth(self) -> dict[str, int]:
        """Events that wait, for each channel; those in memory count for each."""
        try:
            waiting = self._state.depth()
        except OutputError as error:
            self._say(error)
            return {}
        with self._lock:
            unwritten = len(self._unwritten)
        return {channel: count + unwritten for channel, count in waiting.items()}

    @property
    def is_full(self) -> bool:
        """Whether events are about to be lost, or cannot be written."""
        return self._full or self._state.fullness > 0.9
