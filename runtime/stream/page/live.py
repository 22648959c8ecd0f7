"""What the page knows of the stream now. One snapshot serves all viewers: it is encoded once."""

import json
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from msc_edge.drawing import encode_image
from msc_edge.overlay import overlay
from msc_edge.runtime.stream.page.reasons import reason_in
from msc_edge.runtime.stream.page.snapshot import FrameImage, Scored, Snapshot
from msc_edge.runtime.stream.page.texts import LANGUAGES, Texts, texts

SILENT_AFTER = 10.0
"""Seconds without a snapshot after which the stream counts as not answering."""
_WATCHED_FOR = 3.0  # seconds that a viewer counts after its last request
_INTERVAL, _IDLE_INTERVAL = 0.25, 1.0  # seconds between two snapshots, with and without viewers
_POINTS = 240  # of a chart
_POINT_SECONDS = 0.5  # of one point: the highest score of this time
_HELD = 2.0  # seconds that the frame of a reject stays, whatever comes after it
_QUALITY = 80


class _Source:
    """What is displayed of one source."""

    def __init__(self) -> None:
        self.points: deque[list[float | str]] = deque(maxlen=_POINTS)
        self.last: Scored | None = None
        self.shown: Scored | None = None
        """The decision whose frame is displayed."""
        self.held_until = 0.0
        self.images: tuple[bytes, bytes] | None = None
        """JPEG of the frame, and with its heatmap."""

    def add_point(self, scored: Scored) -> None:
        self.last = scored
        if scored.score is None:
            return
        place = scored.time - scored.time % _POINT_SECONDS
        point: list[float | str] = [round(scored.time, 2), float(f"{scored.score:.6g}"), scored.outcome]
        if not self.points or float(self.points[-1][0]) < place:
            self.points.append(point)
        elif scored.score > float(self.points[-1][1]):
            self.points[-1] = point

    def show(self, frame: FrameImage) -> None:
        """Display a frame, unless a reject is held."""
        now = time.monotonic()
        is_reject = frame.scored.outcome == "reject"
        if now < self.held_until and not is_reject:
            return
        self.held_until = now + _HELD if is_reject else 0.0
        plain = encode_image(frame.image, ".jpg", quality=_QUALITY)
        drawn = plain
        if frame.grid_map is not None and frame.scored.outcome != "normal":
            drawn = encode_image(overlay(frame.image, frame.grid_map), ".jpg", quality=_QUALITY)
        self.shown, self.images = frame.scored, (plain, drawn)


class LiveState:
    """The last snapshot, the points of the charts, and the frames. `update` is called by one thread, others read."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.metrics: tuple[float, bytes] | None = None
        """`time.monotonic()` of the metrics, and their text."""
        self._received = time.monotonic()
        self._sources: dict[str, _Source] = {}
        self._watched_until = 0.0
        self._metrics_wanted = False
        self._wake = threading.Event()
        self._json = b"null"
        self._reasons = dict.fromkeys(LANGUAGES, b"null")

    def update(self, snapshot: Snapshot) -> None:
        """Take a snapshot."""
        for name in (each.name for each in snapshot.status.sources):
            self._sources.setdefault(name, _Source())
        for scored in snapshot.recent.scored:
            self._sources[scored.source].add_point(scored)
        for frame in snapshot.recent.frames:
            self._sources[frame.scored.source].show(frame)
        if snapshot.metrics is not None:
            self._metrics_wanted = False
            self.metrics = time.monotonic(), snapshot.metrics
        self.snapshot, self._received = snapshot, time.monotonic()
        self._reasons = {language: _encoded(_reasons(snapshot, texts(language))) for language in LANGUAGES}
        self._json = _encoded(self._as_json(snapshot))

    @property
    def age(self) -> float:
        """Seconds since the last snapshot; since the start where there was none."""
        return time.monotonic() - self._received

    @property
    def is_silent(self) -> bool:
        """Whether the stream does not answer."""
        return self.age > SILENT_AFTER

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks at frames."""
        return time.monotonic() < self._watched_until

    @property
    def wants_metrics(self) -> bool:
        """Whether the next snapshot is to contain metrics."""
        return self._metrics_wanted

    def kits(self) -> dict[str, Path]:
        """The kits in use, by SHA-256; none before the first snapshot."""
        snapshot = self.snapshot
        return {kit.sha256: kit.path for kit in snapshot.status.kits} if snapshot else {}

    def watch(self) -> None:
        """Note that somebody looks at frames."""
        if not self.is_watched:
            self._wake.set()
        self._watched_until = time.monotonic() + _WATCHED_FOR

    def want_metrics(self) -> None:
        """Ask for metrics with the next snapshot."""
        self._metrics_wanted = True
        self._wake.set()

    def pause(self, connection: Connection) -> None:
        """Wait until the next snapshot is due, or the stream sends one without being asked."""
        until = time.monotonic() + (_INTERVAL if self.is_watched else _IDLE_INTERVAL)
        while (left := until - time.monotonic()) > 0 and not connection.poll(min(left, _INTERVAL)):
            if self._wake.is_set():
                break
        self._wake.clear()

    def as_json(self, failure: str, t: Texts) -> bytes:
        """The state for the script of the page: the age of the snapshot in seconds, the snapshot, and its reasons.

        `failure`: why records cannot be stored; empty while they can. `t`: the language of the reasons.
        """
        head = {"age": round(self.age, 1), "silent": self.is_silent, "failure": reason_in(t, failure)}
        return b'%s,"live":%s,"reasons":%s}' % (_encoded(head)[:-1], self._json, self._reasons[t.language])

    def image(self, source: str, *, plain: bool) -> bytes | None:
        """The frame of a source that is displayed, JPEG, with its heatmap unless it is `plain`; None without one."""
        found = self._sources.get(source)
        return found.images[0 if plain else 1] if found and found.images else None

    def _as_json(self, snapshot: Snapshot) -> dict[str, Any]:
        status = snapshot.status
        return {
            "time": status.time,
            "station": status.station,
            "sources": [
                {
                    "name": each.name,
                    "state": each.state,
                    "old_after": each.old_after,
                    "drift": each.drift,
                    "kit": each.kit,
                    "limit": each.limit,
                    "warn": each.warn,
                    "last": _decision(self._sources[each.name].last),
                    "shown": _decision(self._sources[each.name].shown),
                    "points": list(self._sources[each.name].points),
                }
                for each in status.sources
            ],
            "sinks": [
                {"name": each.name, "waiting": each.waiting, "set_aside": each.set_aside, "fails": bool(each.failure)}
                for each in status.sinks
            ],
            "kits": [
                {"sha256": each.sha256, "name": each.name, "model": each.model, "learned": each.learned}
                for each in status.kits
            ],
        }


def _reasons(snapshot: Snapshot, t: Texts) -> dict[str, Any]:
    """Why the station is not ready, why sources are not scored, and why sinks fail: parts of sentences."""
    status = snapshot.status
    return {
        "not_ready": [reason_in(t, each) for each in status.not_ready],
        "sources": {each.name: reason_in(t, each.reason) for each in status.sources},
        "sinks": {each.name: reason_in(t, each.failure) for each in status.sinks},
    }


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _decision(scored: Scored | None) -> dict[str, Any] | None:
    if scored is None:
        return None
    return {
        "number": scored.number,
        "time": scored.time,
        "outcome": scored.outcome,
        "score": scored.score,
        "limit": scored.limit,
    }
