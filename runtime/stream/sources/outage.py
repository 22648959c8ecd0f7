"""Why and since when no frames of a source are scored."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Self

from msc_edge.runtime.stream.logs import LOG

_HOUR = 3600.0  # seconds
OutageState = Literal["connecting", "lost", "frozen", "ended", "stalled"]


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without frames that are scored. It lasts until the source has none."""

    state: OutageState
    reason: str = ""
    started: float = field(default_factory=time.monotonic)
    """`time.monotonic()` of the last frame that was scored, or of the start."""
    since: datetime = field(default_factory=lambda: datetime.now().astimezone())
    """The same by the wall clock, in local time."""

    @classmethod
    def since_monotonic(cls, started: float) -> Self:
        """A loss that began at a time of `time.monotonic()`."""
        elapsed = timedelta(seconds=time.monotonic() - started)
        return cls("lost", "", started, datetime.now().astimezone() - elapsed)

    def short(self) -> str:
        """State and duration, such as `lost for 25 s`."""
        return f"{self.state} for {duration(time.monotonic() - self.started)}"

    def sentence(self) -> str:
        """State, duration and time, such as `lost for 25 s, since 14:02:11`."""
        today = self.since.date() == datetime.now().astimezone().date()
        return f"{self.short()}, since {self.since.strftime('%H:%M:%S' if today else '%Y-%m-%d %H:%M:%S')}"

    def __str__(self) -> str:
        return f"{self.sentence()}: {self.reason}" if self.reason else self.sentence()


class OutageLog:
    """Logs an outage at each new reason, and once an hour."""

    def __init__(self, source: str) -> None:
        """`source`: its name, and where it is."""
        self._source = source
        self._reasons: set[str] = set()  # logged within the hour: reasons may alternate several times a minute
        self._logged = 0.0

    def report(self, outage: Outage) -> None:
        """Log an outage that has a reason, unless this reason was logged within the hour."""
        now = time.monotonic()
        if now - self._logged >= _HOUR:
            self._reasons.clear()
        if outage.reason and outage.reason not in self._reasons:
            self._reasons.add(outage.reason)
            self._logged = now
            LOG.warning("%s: %s; %s; trying again", self._source, outage.reason, outage.sentence())

    def clear(self) -> None:
        """The outage is over."""
        self._reasons.clear()


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, rounded down: of an outage, the unit matters."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
