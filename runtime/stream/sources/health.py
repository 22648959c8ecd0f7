"""The state of a live source: a state machine, independent of clocks, processes and cameras.

                       frame
        CONNECTING ─────────────▶ LIVE ──────────────▶ FROZEN
            │                     │  ▲  same frame       │
            │ no frame            │  │  for 20 s         │ another frame: LIVE
            ▼        broken, or   ▼  │ frame             │ broken, or no frame: LOST
           LOST ◀──── no frame ── LOST ◀─────────────────┘
                      for 20 s

Entering LIVE, LOST or FROZEN is an event. In LOST and FROZEN the grabber process is restarted, at most five times a
minute. docs/source-states.svg shows the states to operators.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

MAX_RESTARTS = 5
RESTART_WINDOW = 60.0  # seconds


class Condition(Enum):
    """The states."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of state, to be reported as an event."""

    to: Literal["source_up", "source_lost", "source_frozen"]
    reason: str
    seconds: float | None = None
    """For `source_up`: how long no frame was scored; None the first time."""


@dataclass
class Health:
    """The state of one live source. All times are seconds of one monotonic clock."""

    lost_after: float
    frozen_after: float
    """0: never frozen, for cameras without noise that show still scenes."""
    started: float
    condition: Condition = field(default=Condition.CONNECTING, init=False)
    _last_frame: float = field(init=False)
    """Time of the last frame, or of the start."""
    _last_change: float | None = field(default=None, init=False)
    """Time of the last frame that differed from the one before."""
    _last_scored: float | None = field(default=None, init=False)
    _last_restart: float = field(init=False)
    _restarts: deque[float] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._last_frame = self._last_restart = self.started

    def frame(self, now: float, *, repeated: bool) -> StateChange | None:
        """A frame has arrived. `repeated`: all its pixels equal those of the previous frame."""
        self._last_frame = now
        if not repeated or self._last_change is None:
            self._last_change = now
        elif self.frozen_after and now - self._last_change >= self.frozen_after:
            if self.condition is Condition.FROZEN:
                return None
            self.condition = Condition.FROZEN
            return StateChange("source_frozen", f"the same frame for {now - self._last_change:.0f} s")
        elif self.frozen_after and self.condition is not Condition.LIVE:
            # After a loss, a repetition of the last frame does not show that the camera works.
            return None
        if self.condition is Condition.LIVE:
            self._last_scored = now
            return None
        gap = None if self._last_scored is None else now - self._last_scored
        self.condition, self._last_scored = Condition.LIVE, now
        return StateChange("source_up", "frames arrive", gap)

    def broken(self, now: float, reason: str) -> StateChange | None:
        """The connection has ended, or could not be made."""
        if self.condition in (Condition.LIVE, Condition.FROZEN):
            return self._lose(reason)
        return self.no_frame(now, reason)

    def no_frame(self, now: float, reason: str = "") -> StateChange | None:
        """No frame has arrived. `reason`: the last known one, if any."""
        if now - self._last_frame < self.lost_after or self.condition is Condition.LOST:
            return None
        return self._lose(reason or f"no frame for {now - self._last_frame:.0f} s")

    def not_requested(self, now: float) -> None:
        """No frame was requested, so none is missing."""
        if self.condition is not Condition.LOST:
            self._last_frame = now

    def _lose(self, reason: str) -> StateChange:
        self.condition = Condition.LOST
        return StateChange("source_lost", reason)

    @property
    def scorable(self) -> bool:
        """Whether frames are to be scored. The repeated frame of a frozen camera does not show the next part."""
        return self.condition is Condition.LIVE

    def restart_due(self, now: float) -> bool:
        """Whether to restart the grabber: no frame for `lost_after`, or the same one for `frozen_after`."""
        waited = now - self._last_restart
        silent = now - self._last_frame >= self.lost_after and waited >= self.lost_after
        frozen = self.condition is Condition.FROZEN and waited >= max(self.frozen_after, RESTART_WINDOW / MAX_RESTARTS)
        return silent or frozen

    def may_restart(self, now: float) -> bool:
        """Whether a restart is allowed: fewer than five in the last minute."""
        while self._restarts and now - self._restarts[0] >= RESTART_WINDOW:
            self._restarts.popleft()
        return len(self._restarts) < MAX_RESTARTS

    def restarted(self, now: float) -> None:
        """The grabber was restarted."""
        self._restarts.append(now)
        self._last_restart = now
