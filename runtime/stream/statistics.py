"""Counts, rates and latencies of a stream: the source of the status line and of /readyz."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from msc_edge.runtime.stream.frame import Decision

_WINDOW = 10.0  # seconds that rates and percentiles cover


@dataclass
class Statistics:
    """Statistics over all sources. Safe to use from several threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=10_000))
    """(time of the decision, milliseconds from capture to decision)."""
    _last_decision: dict[str, float] = field(default_factory=dict)
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
            self._last_decision[decision.frame.source] = now
            if decision.verdict is None or decision.stages is None:
                self.unreadable += 1
            else:
                self.verdicts[decision.verdict] += 1
                self._recent.append((now, decision.stages.total))

    def add_event(self, kind: str) -> None:
        """Count an event."""
        with self._lock:
            self.events[kind] += 1

    def seconds_since_last(self, source: str) -> float | None:
        """Seconds since the last decision of this source; None before the first."""
        with self._lock:
            last = self._last_decision.get(source)
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
