"""When rejected frames raise a `reject` event: after m rejects among the last n frames, and after a cooldown."""

from collections import deque

from msc_edge.calibration import Verdict
from msc_edge.runtime.stream.config import AlarmConfig


class Debounce:
    """Debouncing for one source. With 1-of-1 and no cooldown, each rejected frame raises an event."""

    def __init__(self, rule: AlarmConfig) -> None:
        self.rule = rule
        """May be replaced at any time."""
        self._rejected: deque[bool] = deque()
        self._last_event: float | None = None
        self._suppressed = 0

    def event_for(self, verdict: Verdict, now: float) -> int | None:
        """Add a frame's verdict. None: it raises no event.

        Otherwise the number of rejects since the last event, this one left out, which raised none. `now`: seconds of a
        monotonic clock. An event resets the rule: the next one takes m more rejects.
        """
        rule = self.rule
        self._rejected.append(verdict == "reject")
        while len(self._rejected) > rule.after.n:
            self._rejected.popleft()
        if verdict != "reject":
            return None
        cooling = self._last_event is not None and now - self._last_event < rule.cooldown
        if cooling or sum(self._rejected) < rule.after.m:
            self._suppressed += 1
            return None
        self._rejected.clear()
        self._last_event = now
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
