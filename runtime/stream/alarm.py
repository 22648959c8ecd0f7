"""When rejected frames make a `reject` event: m of the last n, and not again before a while has passed."""

from collections import deque
from dataclasses import dataclass, field

from msc_edge.calibration import Verdict


@dataclass
class Debounce:
    """One for each source. With m = n = 1 and no cooldown, each rejected frame is an event."""

    m: int
    n: int
    cooldown: float
    """Seconds."""
    _window: deque[bool] = field(init=False)
    _last: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._window = deque(maxlen=self.n)

    def judged(self, verdict: Verdict, now: float) -> bool:
        """Whether this frame's verdict, at `now` seconds of a monotonic clock, makes an event.

        After an event the count begins anew: the next one takes m more rejects.
        """
        self._window.append(verdict == "reject")
        if verdict != "reject" or sum(self._window) < self.m:
            return False
        if self._last is not None and now - self._last < self.cooldown:
            return False
        self._window.clear()
        self._last = now
        return True
