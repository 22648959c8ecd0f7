"""When rejected frames raise a `reject` event: after m rejects among the last n frames, and after a cooldown."""

import threading
from collections import deque
from dataclasses import dataclass

from msc_edge.calibration import Verdict
from msc_edge.runtime.stream.config_sections import AlarmConfig, MofN

_GRACE = 1.0  # seconds; a `reject` event that comes at once after a cooldown counts the suppressed rejects itself


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Rejects that raised no event."""

    count: int
    since: float
    """`time.monotonic()` of the first one."""


@dataclass(frozen=True, slots=True)
class Raised:
    """A rejected frame raises an event."""

    suppressed: int
    """Rejects before it that raised none, and were not taken."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A rejected frame raises no event: so far there are too few rejects among the last frames."""

    rejects: int
    """Among the last n frames, with this one."""
    after: MofN


class Debounce:
    """Debouncing for one source. With 1-of-1 and no cooldown, each rejected frame raises an event.

    Safe to use from several threads. No reject disappears: each one raises an event, is counted by the next `reject`
    event, or is in what a `take_...` method returns.
    """

    def __init__(self, rule: AlarmConfig) -> None:
        self.rule = rule
        """May be replaced at any time."""
        self._lock = threading.Lock()
        self._rejected: deque[bool] = deque()
        self._last_event: float | None = None
        self._in_cooldown = False  # rejects were suppressed in the last cooldown, and were not taken since
        self._suppressed: Suppressed | None = None

    def add(self, verdict: Verdict, now: float) -> Raised | Waiting | None:
        """Add a frame's verdict. None: it is no reject, or one in a cooldown.

        `now`: `time.monotonic()` of the frame. An event resets the rule: the next one takes m more rejects.
        """
        with self._lock:
            rule = self.rule
            self._rejected.append(verdict == "reject")
            while len(self._rejected) > rule.after.n:
                self._rejected.popleft()
            if verdict != "reject":
                return None
            cooling = self._last_event is not None and now - self._last_event < rule.cooldown
            self._in_cooldown |= cooling
            rejects = sum(self._rejected)
            if cooling or rejects < rule.after.m:
                before = self._suppressed or Suppressed(0, now)
                self._suppressed = Suppressed(before.count + 1, before.since)
                return None if cooling else Waiting(rejects, rule.after)
            self._rejected.clear()
            self._last_event = now
            suppressed = self._take()
            return Raised(suppressed.count if suppressed else 0)

    def take_after_cooldown(self, now: float) -> Suppressed | None:
        """The suppressed rejects once after each cooldown; None before its end, later, and where there are none.

        Later ones are isolated rejects that do not meet `after`: the next event counts them.
        """
        with self._lock:
            if not self._in_cooldown or self._last_event is None:
                return None
            if now - self._last_event < self.rule.cooldown + _GRACE:
                return None
            return self._take()

    def take_suppressed(self) -> Suppressed | None:
        """The suppressed rejects, at any time; None where there are none."""
        with self._lock:
            return self._take()

    def _take(self) -> Suppressed | None:
        self._in_cooldown = False
        taken, self._suppressed = self._suppressed, None
        return taken
