"""How the stream is doing: the statistics behind the line of status, and behind /readyz."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from msc_edge.runtime.stream.frame import Decision

_LATELY = 10.0  # seconds that rates and percentiles look back


@dataclass
class Statistics:
    """Counted over all sources. Safe to use from several threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _lately: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=10_000))
    """(when it was decided, milliseconds from capture to decision)."""
    _last: dict[str, float] = field(default_factory=dict)
    frames: int = 0
    dropped: int = 0
    unreadable: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def decided(self, decision: Decision) -> None:
        """Count a decision."""
        now = time.monotonic()
        with self._lock:
            self.frames += 1
            self.dropped += decision.frame.dropped
            self._last[decision.frame.source] = now
            if decision.verdict is None or decision.stages is None:
                self.unreadable += 1
            else:
                self.verdicts[decision.verdict] += 1
                self._lately.append((now, decision.stages.total))

    def happened(self, kind: str) -> None:
        """Count an event."""
        with self._lock:
            self.events[kind] += 1

    def age_of_last(self, source: str) -> float | None:
        """Seconds since a frame of this source was decided; None before the first."""
        with self._lock:
            last = self._last.get(source)
        return None if last is None else time.monotonic() - last

    def line(self, *, outbox: int) -> str:
        """The line of status."""
        now = time.monotonic()
        with self._lock:
            while self._lately and now - self._lately[0][0] > _LATELY:
                self._lately.popleft()
            totals = [total for _, total in self._lately]
            span = max(1.0, now - self._lately[0][0]) if totals else 1.0
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
