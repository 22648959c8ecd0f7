"""The rules of triggers, with frames and times that the test chooses."""

import json
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import pytest

from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.line.values import LineValues
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.sources.outage import Outage
from msc_edge.runtime.stream.triggers.answer import MEANINGS, STATUSES, Answer
from msc_edge.runtime.stream.triggers.pending import TriggeredSource, Triggers


class Camera:
    """A source; the frames come from the test."""

    is_live = True
    partial_outage = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outage: Outage | None = None

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        on_event("source_up", "frames arrive", None)
        yield None

    def scored(self) -> None:
        pass

    def close(self) -> None:
        pass


class Bench:
    def __init__(self, decision_of: Callable[..., Decision], *names: str, delay: float = 0.0, timeout: float = 60.0):
        self._decision_of = decision_of
        self.cameras = {name: Camera(name) for name in names or ("cam",)}
        self.line, self.metrics = LineValues(list(self.cameras)), Metrics()
        sources = {name: TriggeredSource(camera, delay) for name, camera in self.cameras.items()}
        self.triggers = Triggers(sources, timeout=timeout, metrics=self.metrics, line=self.line)
        self.answers: list[Answer] = []

    def ask(self, id: str, source: str | None = None, **options: Any) -> None:
        self.triggers.ask(id, source, self.answers.append, **options)

    def frame(self, verdict: str | None = "normal", *, source: str = "cam", age: float = 0.0) -> str | None:
        """A frame that was captured `age` seconds ago is there, and is scored if anybody asked; its trigger."""
        trigger = self.triggers.take(source, time.monotonic() - age)
        if trigger is not None:
            self.decide(trigger, verdict, source=source)
        return trigger

    def decide(self, trigger: str, verdict: str | None = "normal", *, source: str = "cam") -> None:
        """The frame of a trigger was scored: what the worker of the source does then."""
        decision = self.decision(trigger, verdict, source=source)
        self.line.publish(decision, is_late=not self.triggers.answer(decision))

    def decision(self, trigger: str | None, verdict: str | None = "normal", *, source: str = "cam") -> Decision:
        made = self._decision_of(source, verdict)
        return replace(made, frame=replace(made.frame, trigger=trigger, error=None if verdict else "too dark"))

    @property
    def last(self) -> Answer:
        return self.answers[-1]

    @property
    def statuses(self) -> list[str]:
        return [each.status for each in self.answers]


@pytest.fixture
def bench(decision_of: Callable[..., Decision]) -> Bench:
    return Bench(decision_of)


def test_a_frame_that_nobody_asked_for_is_not_taken(bench: Bench) -> None:
    assert bench.frame() is None
    assert bench.answers == []


def test_the_answer_has_the_id_and_the_decision(bench: Bench) -> None:
    bench.ask("part-1")
    assert bench.answers == [], "nothing is answered before a frame"
    assert bench.frame("reject") == "part-1"
    assert (bench.last.trigger, bench.last.status, bench.last.error) == ("part-1", "scored", None)
    found = json.loads(bench.last.as_json())
    assert (found["trigger"], found["verdict"], found["source"]) == ("part-1", "reject", "cam")
    assert bench.frame() is None, "one frame for one trigger"


@pytest.mark.parametrize(("delay", "age", "is_taken"), [(0, 0.5, False), (0, 0, True), (5, 0, False), (5, -6, True)])
def test_a_frame_from_before_the_trigger_and_its_delay_is_not_taken(
    decision_of: Callable[..., Decision], delay: float, age: float, is_taken: bool
) -> None:
    """Such a frame shows the part before."""
    bench = Bench(decision_of, delay=delay)
    bench.ask("part-1")
    assert (bench.frame(age=age) == "part-1") is is_taken


def test_a_frame_that_cannot_be_scored_is_an_error_with_the_id(bench: Bench) -> None:
    bench.ask("part-1")
    bench.frame(None)
    found = json.loads(bench.last.as_json())
    assert (found["status"], found["trigger"], found["verdict"], found["error"]) == (
        *("not_scored", "part-1"),
        *(None, "too dark"),
    )


def test_a_second_trigger_while_one_waits_is_refused_and_the_first_is_answered(bench: Bench) -> None:
    bench.ask("part-1")
    bench.ask("part-2")
    assert (bench.last.trigger, bench.last.status) == ("part-2", "busy")
    assert "part-1" in (bench.last.error or "")
    assert bench.frame() == "part-1"
    bench.ask("part-2")
    assert bench.frame() == "part-2", "a trigger that was refused may come again"


def test_a_trigger_while_a_frame_is_scored_gets_the_next_frame(bench: Bench) -> None:
    bench.ask("part-1")
    assert bench.triggers.take("cam", time.monotonic()) == "part-1"
    bench.ask("part-2")
    bench.ask("part-3")
    assert bench.statuses == ["busy"]
    bench.decide("part-1", "normal")
    assert bench.frame("reject") == "part-2"
    assert [(each.trigger, each.decision and each.decision.verdict) for each in bench.answers[1:]] == [
        ("part-1", "normal"),
        ("part-2", "reject"),
    ]


def test_an_id_that_is_repeated_while_it_is_pending_joins_and_both_get_the_answer(bench: Bench) -> None:
    bench.ask("part-1")
    bench.ask("part-1")
    assert bench.triggers.take("cam", time.monotonic()) == "part-1"
    bench.ask("part-1")
    bench.decide("part-1")
    assert bench.statuses == ["scored"] * 3
    assert len({id(each.decision) for each in bench.answers}) == 1, "of one frame"


def test_an_id_that_was_scored_is_not_scored_again(bench: Bench) -> None:
    """A message that arrives twice must not get the verdict of the next part."""
    bench.ask("part-1")
    bench.frame()
    bench.ask("part-1")
    assert bench.last.status == "repeated"
    assert bench.last.decision is None
    assert bench.frame() is None


def test_a_number_of_a_machine_may_come_again(bench: Bench) -> None:
    for _ in range(2):
        bench.ask("1", may_repeat=True)
        bench.frame()
    assert bench.statuses == ["scored", "scored"]


def test_a_thousand_ids_are_remembered_and_no_more(bench: Bench) -> None:
    for number in range(1001):
        bench.ask(f"part-{number}")
        bench.frame()
    bench.ask("part-1")
    bench.ask("part-0")
    assert bench.statuses[1001:] == ["repeated"], "the oldest one is forgotten, and waits for a frame"


@pytest.mark.parametrize("id", ["", " ", "-1", "a b", "ä", "a\n", "=1+1", "x" * 65, "\ud800", "²"])
def test_an_id_that_cannot_be_used_is_refused(bench: Bench, id: str) -> None:
    bench.ask(id)
    assert bench.statuses == ["invalid"]
    assert bench.frame() is None
    assert json.loads(bench.last.as_json())["verdict"] is None


@pytest.mark.parametrize("id", ["1", "x" * 64, "A", "2026-11-30T12:00:00+01:00/7", "a_b.c"])
def test_other_ids_are_accepted(bench: Bench, id: str) -> None:
    bench.ask(id)
    assert bench.frame() == id


def test_of_several_sources_one_must_be_named(decision_of: Callable[..., Decision]) -> None:
    bench = Bench(decision_of, "left", "right")
    for source in (None, "cam"):
        bench.ask("part-1", source)
        assert bench.last.status == "unknown_source"
        assert "left, right" in (bench.last.error or "")
    bench.ask("part-1", "right")
    bench.ask("part-1", "left")
    assert bench.frame("reject", source="left") == bench.frame("normal", source="right") == "part-1"
    assert [(each.source, each.status) for each in bench.answers[2:]] == [("left", "scored"), ("right", "scored")]


def test_a_source_without_frames_is_an_error_at_once(bench: Bench) -> None:
    bench.cameras["cam"].outage = Outage("lost", "no route to host")
    bench.ask("part-1")
    assert bench.last.status == "no_frames"
    assert "no route to host" in (bench.last.error or "")
    bench.cameras["cam"].outage = None
    bench.ask("part-1")
    assert bench.frame() == "part-1"


def test_without_a_frame_in_time_the_answer_is_an_error_and_later_frames_are_not_taken(
    decision_of: Callable[..., Decision], until: Callable[..., Any]
) -> None:
    bench = Bench(decision_of, timeout=0.05)
    bench.ask("part-1")
    until(lambda: bench.answers, "the time is over")
    assert (bench.last.trigger, bench.last.status) == ("part-1", "timeout")
    assert bench.frame() is None
    bench.ask("part-1")
    assert bench.triggers.take("cam", time.monotonic()) == "part-1", "it may come again: no frame was scored for it"


def test_a_decision_after_the_error_is_no_second_answer(
    decision_of: Callable[..., Decision], until: Callable[..., Any]
) -> None:
    bench = Bench(decision_of, timeout=0.05)
    bench.ask("part-1")
    assert bench.triggers.take("cam", time.monotonic()) == "part-1"
    until(lambda: bench.answers, "the time is over")
    bench.decide("part-1", "reject")
    bench.ask("part-1")
    assert bench.statuses == ["timeout", "repeated"]
    values = bench.line.sources["cam"]
    assert (values.trigger, values.answer, values.outcome) == ("part-1", "timeout", "none")
    assert (values.sequence, values.reject, values.recent) == (1, 1, ((1, "reject"),))


def test_the_end_of_the_stream_answers_all(bench: Bench) -> None:
    bench.ask("part-1")
    assert bench.triggers.take("cam", time.monotonic()) == "part-1"
    bench.ask("part-2")
    bench.triggers.close()
    bench.ask("part-3")
    assert sorted((each.trigger, each.status) for each in bench.answers) == [
        (f"part-{number}", "stopping") for number in (1, 2, 3)
    ]


def test_a_flood_leaves_nothing_behind_and_each_trigger_gets_one_answer(bench: Bench) -> None:
    before = threading.active_count()

    def flood(first: int) -> None:
        for number in range(first, first + 500):
            bench.ask(f"part-{number}")

    floods = [threading.Thread(target=flood, args=(1000 * number,)) for number in range(4)]
    for each in floods:
        each.start()
    taken = 0
    while any(each.is_alive() for each in floods):
        taken += bench.frame() is not None
    taken += bench.frame() is not None
    assert len(bench.answers) == 2000
    assert bench.statuses.count("scored") == taken > 0
    assert set(bench.statuses) == {"scored", "busy"}
    assert threading.active_count() <= before + 1


def test_the_values_for_a_machine_belong_to_the_trigger_that_they_name(bench: Bench) -> None:
    def shown() -> tuple:
        values = bench.line.sources["cam"]
        return values.trigger, values.answer, values.outcome, values.answer_number, values.reject

    assert shown() == ("", "none", "none", 0, 0)
    bench.ask("7")
    assert shown() == ("7", "waiting", "none", 0, 0)
    bench.frame("reject")
    assert shown() == ("7", "scored", "reject", 7, 1)
    bench.ask("8")
    assert shown() == ("8", "waiting", "none", 0, 1), "the verdict of the part before is gone"
    bench.frame(None)
    assert shown() == ("8", "not_scored", "not_scored", 8, 1)
    bench.ask("9")
    bench.triggers.close()
    assert shown() == ("9", "stopping", "none", 9, 1)


def test_answers_are_counted(bench: Bench) -> None:
    bench.ask("part-1")
    bench.ask("part-2")
    bench.frame()
    text = bench.metrics.as_text().decode()
    assert 'msc_edge_triggers_total{status="scored"} 1.0' in text
    assert 'msc_edge_triggers_total{status="busy"} 1.0' in text
    assert "msc_edge_trigger_answer_seconds_count 1.0" in text


def test_each_status_has_a_meaning() -> None:
    assert tuple(MEANINGS) == STATUSES
