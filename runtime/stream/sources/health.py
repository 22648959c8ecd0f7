"""Is a live source well? A state machine over what is seen of it, apart from clocks, processes and cameras.

                       frame
        CONNECTING ─────────────▶ LIVE ──────────────▶ FROZEN
            │                     │  ▲  same frame       │
            │ no frame            │  │  for 20 s         │ another frame: LIVE
            ▼        broken, or   ▼  │ frame             │ broken, or no frame: LOST
           LOST ◀──── no frame ── LOST ◀─────────────────┘
                      for 20 s

Entering LIVE, LOST and FROZEN is an event. In LOST and FROZEN the grabber is restarted now and then, at most
five times a minute. docs/source-states.svg shows it for people.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

MOST_RESTARTS = 5
RESTART_WINDOW = 60.0


class Condition(Enum):
    """The states."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of state that somebody should know of."""

    to: Literal["source_up", "source_lost", "source_frozen"]
    reason: str
    seconds: float | None = None
    """Of `source_up`: how long no frame was scored; None the first time."""


@dataclass
class Health:
    """The state of one live source. All times are seconds of one monotonic clock, and do not go back."""

    lost_after: float
    frozen_after: float
    """0: a repeated frame is never an alarm, for cameras of still scenes without noise."""
    begun: float
    condition: Condition = field(default=Condition.CONNECTING, init=False)
    _last_frame: float = field(init=False)
    """When a frame came last; at first, when waiting began."""
    _last_change: float | None = field(default=None, init=False)
    """When a frame came that was not like the one before."""
    _scored: float | None = field(default=None, init=False)
    _last_restart: float = field(init=False)
    _restarts: deque[float] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._last_frame = self._last_restart = self.begun

    def frame(self, now: float, *, repeated: bool) -> StateChange | None:
        """A frame came; `repeated`: it is the one before, pixel by pixel."""
        self._last_frame = now
        if not repeated or self._last_change is None:
            self._last_change = now
        elif self.frozen_after and now - self._last_change >= self.frozen_after:
            if self.condition is Condition.FROZEN:
                return None
            self.condition = Condition.FROZEN
            return StateChange("source_frozen", f"the same frame for {now - self._last_change:.0f} s")
        elif self.frozen_after and self.condition is not Condition.LIVE:
            # After a loss, a camera that gives its last frame once more has not shown that it is well.
            return None
        if self.condition is Condition.LIVE:
            self._scored = now
            return None
        gap = None if self._scored is None else now - self._scored
        self.condition, self._scored = Condition.LIVE, now
        return StateChange("source_up", "frames arrive", gap)

    def broken(self, now: float, reason: str) -> StateChange | None:
        """The connection ended, or could not be made."""
        if self.condition in (Condition.LIVE, Condition.FROZEN):
            return self._lose(reason)
        return self.tick(now, reason)

    def tick(self, now: float, reason: str = "") -> StateChange | None:
        """Time passes without a frame; `reason`: what was heard last, if anything."""
        if now - self._last_frame < self.lost_after or self.condition is Condition.LOST:
            return None
        return self._lose(reason or f"no frame for {now - self._last_frame:.0f} s")

    def idle(self, now: float) -> None:
        """Nobody wants a frame just now, so none is missed."""
        if self.condition is not Condition.LOST:
            self._last_frame = now

    def _lose(self, reason: str) -> StateChange:
        self.condition = Condition.LOST
        return StateChange("source_lost", reason)

    @property
    def scorable(self) -> bool:
        """Whether frames are to be scored: a frozen camera's last frame says nothing about the next part."""
        return self.condition is Condition.LIVE

    def restart_due(self, now: float) -> bool:
        """Whether the grabber should be restarted: nothing came for `lost_after`, or the same for `frozen_after`."""
        waited = now - self._last_restart
        silent = now - self._last_frame >= self.lost_after and waited >= self.lost_after
        stuck = self.condition is Condition.FROZEN and waited >= max(self.frozen_after, RESTART_WINDOW / MOST_RESTARTS)
        return silent or stuck

    def may_restart(self, now: float) -> bool:
        """Whether a restart is allowed: fewer than five in the last minute."""
        while self._restarts and now - self._restarts[0] >= RESTART_WINDOW:
            self._restarts.popleft()
        return len(self._restarts) < MOST_RESTARTS

    def restarted(self, now: float) -> None:
        """The grabber was started anew."""
        self._restarts.append(now)
        self._last_restart = now
