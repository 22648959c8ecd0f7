"""The values that a machine reads: the last decision of each source, counters, and whether the stream is alive.

A machine must be able to tell silence from a good part. So each decision has the next sequence number, each source a
state, and the stream a heartbeat that counts only while its own watch runs.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.triggers.answer import Status

State = Literal["waiting", "running", "no_frames", "not_scored", "ended"]
"""Of a source: no frame yet; frames are scored; no frames come; frames come, and cannot be scored; ended."""
STATES: tuple[State, ...] = get_args(State)
Outcome = Literal["normal", "warn", "reject", "not_scored", "none"]
"""Of the last frame; `none`: there was no frame yet, or none that answers the last trigger."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


RECENT = 16
"""Decisions that `SourceValues.recent` keeps."""


@dataclass(frozen=True, slots=True)
class SourceValues:
    """The last decision of a source, and its counters since the start of the stream."""

    state: State = "waiting"
    outcome: Outcome = "none"
    sequence: int = 0
    """Number of the decision, from 1; 0: none yet."""
    id: str = ""
    """Of the decision, as in rows and events."""
    score: float = math.nan
    """NaN where the frame was not scored."""
    limit: float = math.nan
    """The reject limit."""
    captured: float = 0.0
    """Seconds since 1970."""
    milliseconds: float = math.nan
    """From capture to decision."""
    kit: str = ""
    """SHA-256 of the kit, 64 hexadecimal digits; empty where the frame was not scored."""
    normal: int = 0
    warn: int = 0
    reject: int = 0
    not_scored: int = 0
    recent: tuple[tuple[int, Outcome], ...] = ()
    """Number and outcome of the last decisions, newest first: for a machine that has polled too late."""

    trigger: str = ""
    """Id of the trigger that these values answer; empty without one."""
    answer: Status = "none"
    """To that trigger."""

    @property
    def is_running(self) -> bool:
        """Whether the last outcome may be used."""
        return self.state == "running"

    @property
    def answer_number(self) -> int:
        """Number of the trigger that is answered, by these values or by an error; 0: none, or its id is no number."""
        is_answered = self.answer not in ("none", "waiting")
        return int(self.trigger) if is_answered and self.trigger.isdecimal() else 0


_NOT_OF_A_DECISION = ("state", "sequence", "normal", "warn", "reject", "not_scored", "recent")


def _answer_of(decision: Decision) -> Status:
    if decision.frame.trigger is None:
        return "none"
    return "scored" if decision.result else "not_scored"


def _with_newest(before: SourceValues, outcome: Outcome) -> tuple[tuple[int, Outcome], ...]:
    newest: tuple[int, Outcome] = (before.sequence + 1, outcome)
    return (newest, *before.recent)[:RECENT]


class LineValues:
    """The values of all sources. Safe to use from several threads."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: of the sources, in the order of the configuration."""
        self._lock = threading.Lock()
        self._sources = {name: SourceValues() for name in names}
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in names}
        self._listeners: list[Callable[[str, SourceValues], None]] = []
        self._heartbeat, self._ready = 0, False

    @property
    def sources(self) -> dict[str, SourceValues]:
        """The values of each source."""
        with self._lock:
            return dict(self._sources)

    @property
    def heartbeat(self) -> int:
        """Grows by one with each round of the stream's own watch, four times a second."""
        return self._heartbeat

    @property
    def is_ready(self) -> bool:
        """Whether the stream is ready, as at /readyz."""
        return self._ready

    def listen(self, listener: Callable[[str, SourceValues], None]) -> None:
        """Call a function with each new value of a source, in order. It must return at once."""
        self._listeners.append(listener)

    def publish(self, decision: Decision, *, is_late: bool = False) -> None:
        """Show a decision. Takes microseconds: a frame never waits for a machine.

        `is_late`: its trigger was answered with an error before. It is counted, and is no value to act on.
        """
        result, source = decision.result, decision.frame.source
        outcome: Outcome = decision.verdict or "not_scored"
        with self._lock:
            counts, before = self._counts[source], self._sources[source]
            counts[outcome] += 1
            counted = replace(
                before,
                state=before.state if before.state not in ("waiting", "no_frames") else "running",
                sequence=before.sequence + 1,
                recent=_with_newest(before, outcome),
                **{name: counts[name] for name in ("normal", "warn", "reject", "not_scored")},
            )
            if is_late:
                self._show(source, counted)
                return
            self._show(
                source,
                replace(
                    counted,
                    outcome=outcome,
                    id=decision.id,
                    score=result.score if result else math.nan,
                    limit=result.limit if result else math.nan,
                    captured=decision.frame.time.timestamp(),
                    milliseconds=decision.stages.total if decision.stages else math.nan,
                    kit=result.kit if result else "",
                    trigger=decision.frame.trigger or "",
                    answer=_answer_of(decision),
                ),
            )

    def show_trigger(self, source: str, trigger: str, status: Status) -> None:
        """Show a trigger that has no decision. Those of earlier triggers are no answer to it, and disappear."""
        with self._lock:
            before = self._sources[source]
            kept = {name: getattr(before, name) for name in _NOT_OF_A_DECISION}
            self._show(source, SourceValues(trigger=trigger, answer=status, **kept))

    def beat(self, states: Mapping[str, State], *, ready: bool) -> None:
        """One round of the stream's watch: the state of each source."""
        with self._lock:
            self._heartbeat, self._ready = self._heartbeat + 1, ready
            for name, state in states.items():
                if self._sources[name].state != state:
                    self._show(name, replace(self._sources[name], state=state))

    def _show(self, name: str, values: SourceValues) -> None:
        self._sources[name] = values
        for listener in self._listeners:  # within the lock, so that they see the values in order
            listener(name, values)
