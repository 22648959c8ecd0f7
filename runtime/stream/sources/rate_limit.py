"""A rate limit for state changes: a camera with a loose cable must not fill the outbox."""

from collections import deque
from dataclasses import dataclass, field, replace

from msc_edge.runtime.stream.sources.health import StateChange

MAX_CHANGES = 10
WINDOW = 60.0  # seconds


@dataclass
class RateLimit:
    """Passes ten state changes a minute. After that the latest one passes later, with the number of omitted ones."""

    _pending: list[StateChange] = field(default_factory=list)
    _passed: deque[float] = field(default_factory=deque)
    """Times of the changes passed within the window."""
    _last_state: str = ""
    _limited: bool = False

    def add(self, change: StateChange) -> None:
        """Add a state change."""
        self._pending.append(change)

    def due(self, now: float) -> list[StateChange]:
        """The changes to report at `now` seconds of a monotonic clock."""
        while self._passed and now - self._passed[0] >= WINDOW:
            self._passed.popleft()
        if not self._pending:
            return []
        if len(self._passed) >= MAX_CHANGES:
            self._limited = True
            return []
        due, self._pending = self._pending, []
        if self._limited:
            self._limited = False
            due = self._latest_of(due)
        self._passed.extend(now for _ in due)
        self._last_state = due[-1].to if due else self._last_state
        return due

    def _latest_of(self, changes: list[StateChange]) -> list[StateChange]:
        """The latest of several changes, unless it leads to the state reported last."""
        latest = changes[-1]
        if latest.to == self._last_state:
            return []
        if len(changes) == 1:
            return [latest]
        return [replace(latest, reason=f"{latest.reason} ({len(changes) - 1} changes before it were not reported)")]
