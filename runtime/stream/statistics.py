"""Counts, rates and latencies of a stream: the source of the status line and of /readyz."""

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from msc_edge.runtime.stream.events import SCORED_AFTER
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.sources.outage import Outage

_WINDOW = 10.0  # seconds that rates and percentiles cover


@dataclass(frozen=True, slots=True)
class Unscored:
    """Frames in a row that could not be scored."""

    since: float
    """`time.monotonic()` of the first one."""
    frames: int
    reason: str
    """Of the last one."""


@dataclass
class Statistics:
    """Statistics over all sources. Safe to use from several threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=10_000))
    """(time of the decision, milliseconds from capture to decision)."""
    _last_scored: dict[str, float] = field(default_factory=dict)
    _unscored: dict[str, Unscored] = field(default_factory=dict)
    _condition: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    dropped: int = 0
    skipped: int = 0
    unreadable: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def add_decision(self, decision: Decision) -> None:
        """Count a decision."""
        now = time.monotonic()
        with self._lock:
            self.frames += 1
            self.dropped += decision.frame.dropped
            self.skipped += decision.frame.skipped
            source = decision.frame.source
            if decision.verdict is None:
                before = self._unscored.get(source)
                self._unscored[source] = Unscored(
                    before.since if before else now, before.frames + 1 if before else 1, decision.frame.error or ""
                )
            else:
                self._unscored.pop(source, None)
                self._last_scored[source] = now
            if decision.verdict is None or decision.stages is None:
                self.unreadable += 1
            else:
                self.verdicts[decision.verdict] += 1
                self._recent.append((now, decision.stages.total))

    def add_event(self, kind: str, source: str | None = None) -> None:
        """Count an event."""
        with self._lock:
            self.events[kind] += 1
            if source is not None and kind in SCORED_AFTER:
                self._condition[source] = kind
                if kind != "not_scored":  # frames that arrive after a loss are counted from zero again
                    self._unscored.pop(source, None)

    def condition(self, source: str) -> str:
        """The last event about whether frames of this source are scored; "" before the first."""
        with self._lock:
            return self._condition.get(source, "")

    def unscored(self, source: str) -> Unscored | None:
        """The frames of this source that could not be scored, since the last one that was; None without any."""
        with self._lock:
            return self._unscored.get(source)

    def seconds_since_scored(self, source: str) -> float | None:
        """Seconds since a frame of this source was scored; None before the first."""
        with self._lock:
            last = self._last_scored.get(source)
        return None if last is None else time.monotonic() - last

    def status_line(self, *, outbox: int, rows: int = 0, outages: Mapping[str, Outage] = MappingProxyType({})) -> str:
        """The status line: parts in the order of their importance, separated by semicolons.

        `outbox`: number of events in the outbox. `rows`: number of rows that wait for their disk. `outages`: of the
        sources without frames.
        """
        now = time.monotonic()
        with self._lock:
            while self._recent and now - self._recent[0][0] > _WINDOW:
                self._recent.popleft()
            totals = [total for _, total in self._recent]
            span = max(1.0, now - self._recent[0][0]) if totals else 1.0
            counts = {verdict: self.verdicts[verdict] for verdict in ("normal", "warn", "reject")}
            counts["unreadable"] = self.unreadable
            events = {"alarms": self.events["reject"]}
            left_out = {"dropped": self.dropped, "skipped": self.skipped}
        parts = [_counts(counts), _without_frames(outages), _counts(events), f"{len(totals) / span:.1f} fps"]
        parts += [f"p95 {np.percentile(totals, 95):.0f} ms"] if totals else []
        parts += [_counts(left_out), f"outbox {_short(outbox)}"]
        parts += [f"{_short(rows)} rows wait for the disk"] if rows else []
        parts += [f"{name} {outage}" for name, outage in outages.items()]
        return "; ".join(part for part in parts if part)


def fitted(line: str, width: int) -> str:
    """A status line without the last parts, so that it fits into `width` columns."""
    parts = line.split("; ")
    while len(parts) > 1 and len("; ".join(parts)) > width:
        parts.pop()
    return "; ".join(parts)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_short(count)} {name}" for name, count in counts.items())


def _short(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= max(10 * size, 10**5):
            return f"{count // size}{unit}"
    return str(count)


def _without_frames(outages: Mapping[str, Outage]) -> str:
    if len(outages) > 1:
        return f"{len(outages)} SOURCES WITHOUT FRAMES"
    return "".join(f"{name}: NO FRAMES, {outage.short()}" for name, outage in outages.items())
