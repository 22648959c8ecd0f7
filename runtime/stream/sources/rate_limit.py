"""A camera that comes and goes many times a minute must not fill the outbox with its comings and goings."""

from collections import deque
from dataclasses import dataclass, field, replace

from msc_edge.runtime.stream.sources.health import StateChange

MOST = 10
WINDOW = 60.0  # seconds


@dataclass
class RateLimit:
    """Lets ten changes of state a minute through; then the latest one, when there is room, with the number between."""

    _held: list[StateChange] = field(default_factory=list)
    _told: deque[float] = field(default_factory=deque)
    _last: str = ""
    _waited: bool = False

    def take(self, turn: StateChange) -> None:
        """A change of state."""
        self._held.append(turn)

    def due(self, now: float) -> list[StateChange]:
        """What is to be told at `now` seconds of a monotonic clock."""
        while self._told and now - self._told[0] >= WINDOW:
            self._told.popleft()
        if not self._held:
            return []
        if len(self._told) >= MOST:
            self._waited = True
            return []
        due, self._held = self._held, []
        if self._waited:
            self._waited = False
            due = self._latest_of(due)
        self._told.extend(now for _ in due)
        self._last = due[-1].to if due else self._last
        return due

    def _latest_of(self, turns: list[StateChange]) -> list[StateChange]:
        """The last of several changes, if it is news."""
        latest = turns[-1]
        if latest.to == self._last:
            return []
        if len(turns) == 1:
            return [latest]
        return [replace(latest, reason=f"{latest.reason} (and {len(turns) - 1} changes in the last minute, not told)")]
