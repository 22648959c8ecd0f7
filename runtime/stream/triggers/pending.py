"""The triggers of a stream: which frame is the first that may answer, and who gets the answer.

Each trigger gets exactly one answer. A source has at most one trigger that waits for its frame; while that frame is
scored, the next one may wait. Further triggers are refused at once: nothing queues, because a frame that is scored
later shows another part. A frame answers only if it was captured after the trigger arrived, and after the delay of its
source.
"""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.line.values import LineValues
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sources.interface import Source
from msc_edge.runtime.stream.triggers.answer import MEANINGS, STATUSES, Answer, Status

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,63}", re.ASCII)
_REMEMBERED = 1000  # ids of a source for which a frame was scored
_MOST_ASKERS = 8  # of one trigger: an HTTP client that lost its connection, a message that MQTT delivered twice

_STOPPING = "the stream is stopping; inspect this part in another way"

OnAnswer = Callable[[Answer], None]
"""Takes the answer, on any thread, and returns at once."""
Refusal = tuple[Status, str]
"""The status and the error of an answer."""


@dataclass(frozen=True, slots=True)
class TriggeredSource:
    """A live source that scores only what is asked for."""

    source: Source
    delay: float
    """Seconds from the trigger to the arrival of the first frame that may answer."""


@dataclass(eq=False, slots=True)
class _Pending:
    """A trigger without an answer."""

    id: str
    source: str
    asked: float
    """`time.monotonic()`."""
    earliest: float
    """A frame must be captured later than this."""
    askers: list[OnAnswer]
    timer: threading.Timer | None = None
    is_taken: bool = False
    """Whether it has its frame."""
    is_answered: bool = False


class Triggers:
    """Safe to use from several threads: askers call `ask`, the worker of a source `take` and `answer`."""

    def __init__(
        self,
        sources: Mapping[str, TriggeredSource],
        *,
        timeout: float,
        metrics: Metrics,
        line: LineValues | None = None,
    ) -> None:
        """`timeout`: seconds until a trigger without a decision is answered with an error."""
        self._sources = dict(sources)
        self._timeout = timeout
        self._metrics = metrics
        metrics.add_triggers(set(STATUSES) - {"none", "waiting"})
        self._line = line
        self._lock = threading.Lock()
        self._waiting: dict[str, _Pending] = {}
        self._scoring: dict[str, _Pending] = {}
        self._scored: dict[str, OrderedDict[str, datetime]] = {name: OrderedDict() for name in sources}
        self._closed = False

    @property
    def names(self) -> list[str]:
        """Of the sources that can be asked."""
        return list(self._sources)

    def ask(self, id: str, source: str | None, on_answer: OnAnswer, *, may_repeat: bool = False) -> None:
        """Ask for the next frame of a source, which may be left out where there is only one. Does not wait.

        `on_answer` gets exactly one answer; where the trigger is refused, before this returns. `may_repeat`: the id is
        a number that a machine counts, and begins again at times.
        """
        asked = time.monotonic()
        name = self.names[0] if source is None and len(self._sources) == 1 else source
        refusal = self._invalid(id, name)
        if refusal is None and name is not None:
            with self._lock:
                if self._joined(id, name, on_answer):
                    return
                refusal = self._unavailable(id, name, may_repeat=may_repeat)
                if refusal is None:
                    self._accept(_Pending(id, name, asked, asked + self._sources[name].delay, [on_answer]))
        if refusal:
            status, error = refusal
            self._give([on_answer], Answer(id, name, status, time.monotonic() - asked, error=error))

    def take(self, source: str, captured: float) -> str | None:
        """The id of the trigger that a frame answers, which must be scored now; None: nobody asked for this frame.

        `captured`: `time.monotonic()` of the frame. To be followed by `answer`.
        """
        with self._lock:
            pending = self._waiting.get(source)
            if pending is None or captured <= pending.earliest:
                return None
            del self._waiting[source]
            pending.is_taken = True
            self._scoring[source] = pending
            scored = self._scored[source]
            scored[pending.id] = datetime.now().astimezone()
            if len(scored) > _REMEMBERED:
                scored.popitem(last=False)
            return pending.id

    def answer(self, decision: Decision) -> bool:
        """Answer the trigger of a frame that was taken. False: it is too late, the answer was an error."""
        with self._lock:
            pending = self._scoring.pop(decision.frame.source)
            late, pending.is_answered = pending.is_answered, True
        if late:
            return False
        if pending.timer:
            pending.timer.cancel()
        status: Status = "scored" if decision.result else "not_scored"
        seconds = time.monotonic() - pending.asked
        error = None if decision.result else decision.frame.error or MEANINGS[status]
        self._give(pending.askers, Answer(pending.id, pending.source, status, seconds, decision, error))
        return True

    def close(self) -> None:
        """Answer all that wait, and refuse what comes."""
        with self._lock:
            self._closed = True
            pending = [each for each in (*self._waiting.values(), *self._scoring.values()) if not each.is_answered]
        for each in pending:
            self._fail(each, "stopping", _STOPPING)

    def _invalid(self, id: str, name: str | None) -> Refusal | None:
        """Why a trigger cannot be accepted at any time."""
        if not _ID.fullmatch(id):
            return "invalid", "the id must have 1 to 64 letters, digits or _.:/+- and begin with a letter or a digit"
        if name not in self._sources:
            what = "several sources can be asked" if name is None else "no live source has this name"
            return "unknown_source", f"{what}; name one of: {', '.join(self._sources)}"
        return None

    def _unavailable(self, id: str, name: str, *, may_repeat: bool) -> Refusal | None:
        """Why a trigger cannot be accepted now. Call it with the lock held."""
        if self._closed:
            return "stopping", _STOPPING
        if not may_repeat and (moment := self._scored[name].get(id)):
            return (
                "repeated",
                f"a frame was scored for this id at {moment:%H:%M:%S}, and its row has the verdict; "
                "give each trigger an id of its own",
            )
        if waiting := self._waiting.get(name):
            return "busy", f"trigger {waiting.id} of this source waits for its frame; ask again after its answer"
        if outage := self._sources[name].source.outage:
            return "no_frames", f"this source has no frames: {outage}"
        return None

    def _joined(self, id: str, name: str, on_answer: OnAnswer) -> bool:
        """Whether a trigger with this id is pending, whose answer this asker gets too. Call it with the lock held."""
        for pending in (self._waiting.get(name), self._scoring.get(name)):
            if pending and pending.id == id and not pending.is_answered and len(pending.askers) < _MOST_ASKERS:
                pending.askers.append(on_answer)
                return True
        return False

    def _accept(self, pending: _Pending) -> None:
        """Let a trigger wait for its frame. Call it with the lock held."""
        if self._line:  # before a frame can answer it
            self._line.show_trigger(pending.source, pending.id, "waiting")
        pending.timer = threading.Timer(self._timeout, self._expire, (pending,))
        pending.timer.daemon = True
        self._waiting[pending.source] = pending
        pending.timer.start()

    def _expire(self, pending: _Pending) -> None:
        if pending.is_taken:
            reason = f"its frame was not scored within {self._timeout:g} s"
        else:
            outage = self._sources[pending.source].source.outage
            reason = f"no frame came within {self._timeout:g} s{f': {outage}' if outage else ''}"
        self._fail(pending, "timeout", f"{reason}; inspect this part in another way")

    def _fail(self, pending: _Pending, status: Status, error: str) -> None:
        """Answer an accepted trigger with an error, unless it was answered meanwhile."""
        with self._lock:
            if pending.is_answered:
                return
            pending.is_answered = True
            if self._waiting.get(pending.source) is pending:
                del self._waiting[pending.source]
            if self._line:
                self._line.show_trigger(pending.source, pending.id, status)
        if pending.timer:
            pending.timer.cancel()
        seconds = time.monotonic() - pending.asked
        self._give(pending.askers, Answer(pending.id, pending.source, status, seconds, error=error))

    def _give(self, askers: list[OnAnswer], answer: Answer) -> None:
        self._metrics.add_answer(answer.status, answer.seconds)
        for on_answer in askers:
            on_answer(answer)
