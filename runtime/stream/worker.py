"""The loop of one source: a frame, a decision, and whoever is to know of it."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from msc_edge.errors import MscEdgeError
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.alarm import Debounce
from msc_edge.runtime.stream.events import Event, EventKind, new_id
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.recorder import Recorder
from msc_edge.runtime.stream.sources.interface import Source

_RETRY = 1.0  # seconds between two tries to write what must not be lost


class Worker(threading.Thread):
    """One for each source. It ends when its source does."""

    def __init__(
        self,
        source: Source,
        *,
        detector: Callable[[], Detector],
        debounce: Debounce,
        recorder: Recorder,
        outbox: Outbox,
        reject: Callable[[Decision, Path | None], Event],
        tell: Callable[[str, EventKind, str, float | None], None],
        decided: Callable[[Decision], None],
    ) -> None:
        """`detector` gives the one in force; `reject` words an event; `decided` takes each decision at the end."""
        super().__init__(name=f"msc-edge {source.name}", daemon=True)
        self.source = source
        self._detector = detector
        self._debounce = debounce
        self._recorder = recorder
        self._outbox = outbox
        self._reject = reject
        self._tell = tell
        self._decided = decided
        self._closing = threading.Event()
        self._said = ""
        self.turned = time.monotonic()
        """When the loop went round last."""
        self.failure: BaseException | None = None
        """What ended it, if that was a defect."""

    def run(self) -> None:
        """Score until the source ends."""
        name = self.source.name
        try:
            with closing(
                self.source.frames(lambda kind, words, seconds: self._tell(name, kind, words, seconds))
            ) as frames:
                for frame in frames:
                    self.turned = time.monotonic()
                    if frame is not None:
                        self._deliver(self._decide(frame))
        except BaseException as error:
            self.failure = error
            LOG.exception("%s: a defect of msc-edge ended this source", name)

    def _decide(self, frame: Frame) -> Decision:
        """Score one frame. One that cannot be scored becomes a decision that says why, never a verdict."""
        error, stages, result = frame.error, None, None
        if frame.image is not None:
            detector = self._detector()
            begun = time.monotonic()
            try:
                embedding = detector.embed(frame.image)
                embedded = time.monotonic()
                result = detector.score_embedding(embedding)
                ended = time.monotonic()
                stages = Stages(
                    age=1000 * (begun - frame.captured),
                    infer=1000 * (embedded - begun),
                    search=1000 * (ended - embedded),
                    total=1000 * (ended - frame.captured),
                )
            except MscEdgeError as problem:
                error = str(problem)
            except MemoryError:
                error = "there is not enough memory to score it"
            self._say(error)
        if error:
            frame = replace(frame, error=error)
        return Decision(frame.id or new_id(), frame, result, stages)

    def _say(self, error: str | None) -> None:
        if error and error != self._said:
            LOG.error("%s: a frame cannot be scored: %s", self.source.name, error)
        self._said = error or ""

    def _deliver(self, decision: Decision) -> None:
        image = self._recorder.save_image(decision, patient=not self.source.is_live)
        rejected = decision.verdict is not None and self._debounce.judged(decision.verdict, decision.frame.captured)
        events = [self._reject(decision, image)] if rejected else []
        done = self.source.done(decision)
        if done is None:
            self._recorder.write(decision)
            self._outbox.put(events)
        else:
            # A file must be neither lost nor scored twice: its row first, then the mark, together with its event.
            for write in (lambda: self._recorder.write_once(decision), lambda: self._outbox.put_with(events, done)):
                while not write():
                    self.turned = time.monotonic()
                    if self._closing.wait(_RETRY):
                        return  # it is not marked, and is scored again after the next start
        self._decided(decision)

    def close(self) -> None:
        """Let the loop end after the frame that it is at."""
        self._closing.set()
        self.source.close()
