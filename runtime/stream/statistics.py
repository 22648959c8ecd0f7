"""Counts, rates and latencies of a stream: the source of the status line and of /readyz."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from msc_edge.runtime.stream.events import SCORED_AFTER
from msc_edge.runtime.stream.frame import Decision

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
    unreadable: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def add_decision(self, decision: Decision) -> None:
        """Count a decision."""
        now = time.monotonic()
        with self._lock:
            self.frames += 1
            self.dropped += decision.frame.dropped
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
                if kind != "not_scored":  # frames that arrive after a loss are counted anew
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

    def status_line(self, *, outbox: int) -> str:
        """The status line. `outbox`: number of events in the outbox."""
        now = time.monotonic()
        with self._lock:
            while self._recent and now - self._recent[0][0] > _WINDOW:
                self._recent.popleft()
            totals = [total for _, total in self._recent]
            span = max(1.0, now - self._recent[0][0]) if totals else 1.0
            counts = (
                f"{self.frames} frames, {self.dropped} dropped, "
                f"{self.verdicts['warn']} warned, {self.verdicts['reject']} rejected"
                + (f", {self.unreadable} unreadable" if self.unreadable else "")
                + f", {self.events['reject']} alarms"
            )
        speed = f"{len(totals) / span:.1f} fps"
        if totals:
            p50, p95 = np.percentile(totals, (50, 95))
            speed += f", latency p50 {p50:.0f} ms p95 {p95:.0f} ms"
        return f"{speed}; {counts}; outbox {outbox}"
