"""When rejected frames raise a `reject` event: after m rejects among the last n frames, and after a cooldown."""

from collections import deque
from dataclasses import dataclass, field

from msc_edge.calibration import Verdict


@dataclass
class Debounce:
    """Debouncing for one source. With m = n = 1 and no cooldown, each rejected frame raises an event."""

    m: int
    n: int
    cooldown: float
    """Seconds."""
    _rejected: deque[bool] = field(init=False)
    _last_event: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._rejected = deque(maxlen=self.n)

    def raises_event(self, verdict: Verdict, now: float) -> bool:
        """Add a frame's verdict; whether it raises an event. `now`: seconds of a monotonic clock.

        An event resets the count: the next one takes m more rejects.
        """
        self._rejected.append(verdict == "reject")
        if verdict != "reject" or sum(self._rejected) < self.m:
            return False
        if self._last_event is not None and now - self._last_event < self.cooldown:
            return False
        self._rejected.clear()
        self._last_event = now
        return True
