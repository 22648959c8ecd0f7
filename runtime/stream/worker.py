"""The loop of one source: score a frame, write its row and image, record its event, count it."""

import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from msc_edge.errors import MscEdgeError, SourceError
from msc_edge.preprocessing import Region
from msc_edge.runtime.stream.active_kit import ActiveKits
from msc_edge.runtime.stream.alarm import Debounce, Raised, Suppressed, Waiting
from msc_edge.runtime.stream.config_sections import AlarmConfig
from msc_edge.runtime.stream.drift_watch import DriftWatch
from msc_edge.runtime.stream.events import EventKind, new_id
from msc_edge.runtime.stream.frame import Decision, Frame, Stages, cut
from msc_edge.runtime.stream.frame_request import FrameRequest
from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.line.values import LineValues
from msc_edge.runtime.stream.logs import LOG, FailureLog
from msc_edge.runtime.stream.page.feed import PageFeed
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sinks.recorder import Recorder
from msc_edge.runtime.stream.sources.interface import Source
from msc_edge.runtime.stream.sources.outage import Outage
from msc_edge.runtime.stream.statistics import Statistics
from msc_edge.runtime.stream.triggers.pending import Triggers
from msc_edge.runtime.stream.window import Window
from msc_edge.text import many


class Worker(threading.Thread):
    """The thread of one source. It ends when its source ends."""

    def __init__(
        self,
        source: Source,
        *,
        kits: ActiveKits,
        debounce: Debounce,
        recorder: Recorder,
        journal: EventJournal,
        statistics: Statistics,
        metrics: Metrics,
        window: Window | None = None,
        line: LineValues | None = None,
        page: PageFeed | None = None,
        drift: DriftWatch | None = None,
        triggers: Triggers | None = None,
        roi: Region | None = None,
    ) -> None:
        """All but `source`, `debounce` and `roi` are shared by the workers of a stream.

        With `triggers` a frame is scored only when it is asked for.
        """
        super().__init__(name=f"msc-edge {source.name}", daemon=True)
        self.source = source
        self.debounce = debounce
        self.roi = roi
        """The part of each frame to use, may be replaced at any time."""
        self._kits = kits
        self._recorder = recorder
        self._journal = journal
        self._statistics = statistics
        self._metrics = metrics
        self._window = window
        self._line = line
        self._page = page
        self._triggers = triggers
        self.drift = drift
        """None: the source is not watched for drift."""
        self._last_frame = FrameRequest()
        self._failures = FailureLog(f"{source.name}: frames are scored again")
        self.last_activity = time.monotonic()
        """`time.monotonic()` of the last iteration of the loop."""
        self.failure: BaseException | None = None
        """The internal error that ended the loop, if any."""

    def run(self) -> None:
        """Score until the source ends."""
        try:
            with closing(self.source.frames(self._on_event)) as frames:
                for frame in frames:
                    self.last_activity = time.monotonic()
                    if frame is not None:
                        self._last_frame.offer(frame)
                        if asked := self._asked(frame):
                            self._process(self._cut(asked))
                    self._report_suppressed(self.debounce.take_after_cooldown(time.monotonic()))
                    if self._window:
                        self._window.update(self.source.name, self.source.outage)
        except BaseException as error:
            self.failure = error
            LOG.exception("%s: internal error; this source has stopped, please report it", self.source.name)
        self.report_suppressed()
        if self._window:
            reason = "internal error" if self.failure else "its last frame was scored"
            self._window.update(self.source.name, Outage("ended", reason))

    def _on_event(self, kind: EventKind, message: str, seconds: float | None) -> None:
        self._journal.report(kind, message, source=self.source.name, seconds=seconds)

    def report_suppressed(self) -> None:
        """Report the rejects that raised no event, if there are any: no later event may come to count them."""
        self._report_suppressed(self.debounce.take_suppressed())

    def _report_suppressed(self, suppressed: Suppressed | None) -> None:
        if suppressed is None:
            return
        seconds = time.monotonic() - suppressed.since
        since = datetime.now().astimezone() - timedelta(seconds=seconds)
        self._journal.report(
            "rejects_suppressed",
            f"{many(suppressed.count, 'reject')} since {since:%Y-%m-%d %H:%M:%S} raised no `reject` event, because of "
            "`after` and `cooldown` in [alarm]",
            source=self.source.name,
            count=suppressed.count,
            seconds=max(0.0, seconds),
        )

    def use_alarm(self, rule: AlarmConfig) -> None:
        """Raise events by another rule from now on. The rejects that the old one suppressed are reported."""
        if rule != self.debounce.rule:
            self.report_suppressed()
            self.debounce.rule = rule

    def _asked(self, frame: Frame) -> Frame | None:
        """The frame with its trigger; None if nobody asked for it. Without triggers every frame is scored."""
        if self._triggers is None:
            return frame
        trigger = self._triggers.take(self.source.name, frame.captured)
        # The frames before it were not lost: nobody asked for them.
        return replace(frame, trigger=trigger, dropped=0) if trigger else None

    def _process(self, frame: Frame) -> None:
        earlier = self._recorder.earlier(frame.id, frame) if frame.file and frame.id else None
        decision = earlier or self._score(frame)
        self.source.scored()
        # First whoever waits for it.
        in_time = self._triggers.answer(decision) if self._triggers else True
        if self._line:
            self._line.publish(decision, is_late=not in_time)
        image = self._recorder.save_image(decision, wait=not self.source.is_live)
        self._record(decision, image)
        self._statistics.add_decision(decision)
        self._metrics.add_decision(decision)
        if self._window:
            self._window.show(decision)
        if self._page:
            self._page.add(decision, image, self._kits.detector(self.source.name))
        if self.drift:
            self.drift.add(decision, self._kits.detector(self.source.name))

    def _score(self, frame: Frame) -> Decision:
        """Score one frame. A frame that cannot be scored gets an error and no verdict."""
        if frame.image is None:
            return Decision(_id_of(frame), frame, None, None)
        detector = self._kits.detector(self.source.name)  # once: a reload may replace it at any time
        started = time.monotonic()
        try:
            output = detector.run(frame.image)
            computed = time.monotonic()
            result = detector.score_output(output, frame.image)
        except (MscEdgeError, MemoryError) as error:
            message = str(error) if isinstance(error, MscEdgeError) else "not enough memory to score it"
            self._failures.report_failure(f"{frame.source}: a frame cannot be scored: {message}")
            return Decision(_id_of(frame), replace(frame, error=message), None, None)
        ended = time.monotonic()
        self._failures.recovered()
        stages = Stages(
            age=1000 * (started - frame.captured),
            infer=1000 * (computed - started),
            search=1000 * (ended - computed),
            total=1000 * (ended - frame.captured),
        )
        return Decision(_id_of(frame), frame, result, stages)

    def _record(self, decision: Decision, image: Path | None) -> None:
        """Write the row and the event. `image`: where the frame is saved."""
        frame, file = decision.frame, decision.frame.file
        alarm = self.debounce.add(decision.verdict, frame.captured) if decision.verdict else None
        event = None
        if isinstance(alarm, Raised):
            event = self._journal.rejection(decision, image, suppressed=alarm.suppressed)
        elif isinstance(alarm, Waiting):
            self._journal.log_waiting(decision, alarm)
        if frame.path and decision.result is None:
            event = self._journal.unreadable(decision)
        # A file must be neither lost nor scored twice: its row first, then its mark, together with its event.
        if self._recorder.write(decision, durable=file is not None):
            if file:
                self._journal.record_file(file, event)
            elif event:
                self._journal.record(event)
            return
        if event:  # a full disk must not delay an alarm
            self._journal.record(event)
        self._recorder.write_later(decision, (lambda: self._journal.record_file(file, None)) if file else None)

    def _cut(self, frame: Frame) -> Frame:
        """The part of the frame to use; a frame without an image where the part does not fit."""
        if self.roi is None or frame.image is None:
            return frame
        try:
            return replace(frame, image=cut(frame.image, self.roi))
        except SourceError as error:
            self._failures.report_failure(f"{frame.source}: a frame cannot be scored: {error}")
            return replace(frame, image=None, error=str(error))

    def copy_frame(self, timeout: float) -> np.ndarray | None:
        """A copy of the next whole frame, uint8 (height, width, 3) RGB; None without one in `timeout` seconds."""
        return self._last_frame.take(timeout)

    def close(self) -> None:
        """End the loop after the current frame."""
        self.source.close()


def _id_of(frame: Frame) -> str:
    return frame.id or new_id()
