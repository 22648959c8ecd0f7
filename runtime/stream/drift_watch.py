"""Watches the scores of one source for a drift, and reports it once for each kit, with what has changed.

The test needs images that could come in any order. Of a live source, frames that show the part of the frame before are
therefore left out, and only one frame in `every` seconds counts. Each file of a folder counts. A video file is not
watched: its frames follow each other. The state is kept in a file, so that the promise of the test holds over restarts.
"""

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msc_edge.drift import Change, DriftCall, DriftTest, independent
from msc_edge.errors import OutputError, writing
from msc_edge.files import written_whole
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.appearance import Appearance, appearance_of, describe_change
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.logs import LOG, FailureLog
from msc_edge.text import many, percent

_SAVE_INTERVAL = 60.0  # seconds; at most so much is not counted after a power cut
_REMEMBERED = 1000  # frames whose time and appearance are known; with more, every second of them
_LEAST_GAP = 1.0  # seconds between two of them
_LEAST_COMPARED = 5  # frames before and after the beginning of a drift, to say what has changed
_SAME_PART = 0.1  # of the distance between a normal image and its nearest: frames that are closer show one part
_MEASURED_ROWS = 200  # of the memory bank, for that distance
_CHANGES: dict[Change, str] = {
    "rise": "scores are higher",
    "fall": "scores are lower",
    "rejects": "more parts are rejected",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that counted."""

    number: int
    """Among the frames that counted, from 1."""
    time: str
    """ISO 8601."""
    flagged: bool
    """Warned or rejected."""
    appearance: Appearance


class Timeline:
    """Times and appearances of frames over the whole life of a line, in bounded memory: the longer, the coarser."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._gap = _LEAST_GAP
        self._next = 0.0

    def add(self, number: int, decision: Decision) -> None:
        """Take a frame, if it is time for one."""
        frame, result = decision.frame, decision.result
        assert frame.image is not None
        assert result is not None
        if frame.captured < self._next:
            return
        self._next = frame.captured + self._gap
        moment = frame.time.isoformat(timespec="seconds")
        self.seen.append(Seen(number, moment, result.verdict != "normal", appearance_of(frame.image)))
        if len(self.seen) > _REMEMBERED:
            del self.seen[1::2]
            self._gap *= 2

    def state(self) -> dict[str, Any]:
        """All but the pictures, for a file."""
        rows = [
            (each.number, each.time, each.flagged, each.appearance.brightness, each.appearance.sharpness)
            for each in self.seen
        ]
        return {"gap": self._gap, "seen": rows}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Timeline":
        """What `state` described. ValueError, KeyError or TypeError if it is not one."""
        timeline = cls()
        timeline._gap = max(_LEAST_GAP, float(state["gap"]))
        timeline.seen = [
            Seen(int(number), str(moment), bool(flagged), Appearance(float(brightness), float(sharpness), None))
            for number, moment, flagged, brightness, sharpness in state["seen"]
        ]
        return timeline


class DriftWatch:
    """The drift test of one source. `add` is called by its worker, `save` by the watch of the stream."""

    def __init__(self, source: str, file: Path, *, every: float | None, journal: EventJournal) -> None:
        """`file`: where the state is kept. `every`: of a live source, seconds between two frames that count."""
        self._source, self._file, self._every, self._journal = source, file, every, journal
        self._lock = threading.Lock()
        self._test: DriftTest | None = None
        self._use: dict[str, Any] = {}
        """The kit and the limit that the test belongs to."""
        self._called = False
        self._timeline = Timeline()
        self._last: tuple[float, np.ndarray] | None = None
        self._same_part: float | None = None
        """Cosine distance below which two frames of a live source show the same part; None: not measured yet."""
        self._saved = time.monotonic()
        self._failures = FailureLog(f"{source}: the state of the drift test is written again")
        self._restore()

    def add(self, decision: Decision, detector: Detector) -> None:
        """Count a frame. `detector`: of the source; a frame that another kit has scored is left out."""
        result, image = decision.result, decision.frame.image
        if result is None or image is None or result.kit != detector.kit.sha256:
            return
        limit = detector.limits.reject.score
        use = {"kit": result.kit, "model": result.model, "limit": limit}
        with self._lock:
            if self._test is None or use != self._use:
                self._test, self._use, self._called = DriftTest(independent(detector.calibration), limit), use, False
                self._timeline, self._same_part = Timeline(), None
            if self._called:
                return
            if self._every is not None and self._same_part is None:  # once for each kit: it takes milliseconds
                self._same_part = _SAME_PART * spacing_of(detector.bank.embeddings)
            if not self._shows_another_part(decision):
                return
            call = self._test.add(result.score)
            self._timeline.add(self._test.images, decision)
            if call is None:
                return
            self._called = True
        self._journal.report(
            "drift_suspected", self._describe(call), source=self._source, count=call.images - call.since + 1
        )

    @property
    def is_called(self) -> bool:
        """Whether a drift was reported, for the kit and the limit in use."""
        return self._called

    @property
    def evidence(self) -> float:
        """The capital of the test: 1 without any evidence; at `CALLED` it is reported. It stays as it is after that."""
        with self._lock:
            return self._test.capital if self._test else 1.0

    def start_again(self) -> None:
        """Watch again after a call: what was wrong has been put right. Nothing before a call."""
        with self._lock:
            if self._called:
                self._test = None

    def save(self, *, now: bool = False) -> None:
        """Write the state, once a minute or `now`. A failure is logged."""
        if not now and time.monotonic() - self._saved < _SAVE_INTERVAL:
            return
        self._saved = time.monotonic()
        with self._lock:
            state = self._test and {
                "use": self._use,
                "called": self._called,
                "test": self._test.state(),
                "timeline": self._timeline.state(),
            }
        try:
            with writing(self._file):
                if state is None:  # a call that was put right must not come back at the next start
                    self._file.unlink(missing_ok=True)
                    return
                with written_whole(self._file) as partial:
                    partial.write_text(json.dumps(state), encoding="utf-8")
        except OutputError as error:
            self._failures.report_failure(f"{self._source}: the state of the drift test cannot be written: {error}")
        else:
            self._failures.recovered()

    def _restore(self) -> None:
        try:
            state = json.loads(self._file.read_text(encoding="utf-8"))
            self._test, self._use = DriftTest.of(state["test"]), dict(state["use"])
            self._called = bool(state["called"])
            self._timeline = Timeline.of(state["timeline"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG.warning("%s: %s cannot be read, so the drift test starts again: %s", self._source, self._file, error)
            self._test = None

    def _shows_another_part(self, decision: Decision) -> bool:
        if self._every is None:
            return True
        captured = decision.frame.captured
        assert decision.result is not None
        assert self._same_part is not None
        embedding = decision.result.embedding
        assert embedding is not None, "of a frame that this process has scored"
        if self._last is not None:
            last, earlier = self._last
            if captured - last < self._every or 1 - float(earlier @ embedding) < self._same_part:
                return False
        self._last = captured, embedding
        return True

    def _describe(self, call: DriftCall) -> str:
        """What was called, in words."""
        before = [each for each in self._timeline.seen if each.number < call.since]
        after = [each for each in self._timeline.seen if each.number >= call.since]
        moment = f" since about {(after or before)[0].time}" if after or before else ""
        text = f"{_CHANGES[call.change]}{moment}, over {many(call.images - call.since + 1, 'image')}"
        if min(len(before), len(after)) < _LEAST_COMPARED:
            return f"{text}; check the light, the lens and the position of the camera"
        changes = describe_change([each.appearance for each in before], [each.appearance for each in after])
        rates = (percent(float(np.mean([each.flagged for each in part]))) for part in (before, after))
        return f"{text}: {', '.join(changes)}; warned or rejected {' to '.join(rates)}"


def spacing_of(embeddings: np.ndarray) -> float:
    """The median cosine distance between a row of a memory bank and its nearest other row; float32 (n, dim), n >= 2."""
    rows = np.unique(np.linspace(0, len(embeddings) - 1, _MEASURED_ROWS).round().astype(int))
    similarity = embeddings[rows] @ embeddings.T
    similarity[np.arange(len(rows)), rows] = -np.inf
    return max(0.0, 1 - float(np.median(similarity.max(axis=1))))


def file_of(folder: Path, source: str) -> Path:
    """Where the state of a source is kept, in the folder of the stream's state."""
    return folder / f"drift-{source}.json"
