import math
from collections.abc import Callable

import pytest

from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.line.values import LineValues, SourceValues


@pytest.fixture
def values() -> LineValues:
    return LineValues(["cam", "other"])


def test_before_the_first_frame_there_is_no_outcome(values: LineValues) -> None:
    assert values.sources == {"cam": SourceValues(), "other": SourceValues()}
    assert not values.sources["cam"].is_running
    assert (values.heartbeat, values.is_ready) == (0, False)


def test_each_decision_has_the_next_number_and_is_counted(
    values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    seen: list[tuple[str, int, str]] = []
    values.listen(lambda name, shown: seen.append((name, shown.sequence, shown.outcome)))
    for verdict in ("normal", "warn", "reject", None, "normal"):
        values.publish(decision_of("cam", verdict))
    assert seen == [
        ("cam", number, outcome)
        for number, outcome in enumerate(("normal", "warn", "reject", "not_scored", "normal"), start=1)
    ]
    shown = values.sources["cam"]
    assert (shown.normal, shown.warn, shown.reject, shown.not_scored) == (2, 1, 1, 1)
    assert (shown.state, shown.score, shown.limit) == ("running", 0.5, 1.0)
    assert values.sources["other"].sequence == 0


def test_a_frame_that_was_not_scored_has_no_score(values: LineValues, decision_of: Callable[..., Decision]) -> None:
    values.publish(decision_of("cam", "normal"))
    values.publish(decision_of("cam", None))
    shown = values.sources["cam"]
    assert (shown.outcome, shown.kit, math.isnan(shown.score)) == ("not_scored", "", True)


def test_the_heartbeat_and_the_states_are_those_of_the_watch(
    values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    seen: list[str] = []
    values.listen(lambda name, shown: seen.append(f"{name} {shown.state}"))
    values.publish(decision_of("cam", "reject"))
    values.beat({"cam": "no_frames", "other": "waiting"}, ready=False)
    values.beat({"cam": "no_frames", "other": "waiting"}, ready=True)
    assert seen == ["cam running", "cam no_frames"], "told once"
    assert (values.heartbeat, values.is_ready) == (2, True)
    assert not values.sources["cam"].is_running
    assert values.sources["cam"].outcome == "reject", "the last decision stays, and its state says that it is old"
    values.publish(decision_of("cam", "normal"))
    assert values.sources["cam"].is_running, "a frame is scored again"
