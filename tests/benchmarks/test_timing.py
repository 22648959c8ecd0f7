"""benchmarks/timing.py: which calls are made, in which order, and which of them are recorded."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "timing.py"


class Clock:
    """A clock that moves only when an action says so, so that no test depends on the machine."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls: list[str] = []

    def action(self, name: str, *milliseconds: float) -> Callable[[], None]:
        """An action that takes these times, call by call, and the last one from then on."""
        left = list(milliseconds)

        def act() -> None:
            self.calls.append(name)
            self.seconds += (left.pop(0) if len(left) > 1 else left[0]) / 1000

        return act


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("timing", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.seconds))
    return module


def test_actions_run_in_turns(timing: ModuleType, clock: Clock) -> None:
    timing.samples({"a": clock.action("a", 1), "b": clock.action("b", 1)}, rounds=2, in_a_row=2, warm_up=0)
    assert "".join(clock.calls) == "aabbaabb"


def test_the_warm_up_is_extra_and_not_recorded(timing: ModuleType, clock: Clock) -> None:
    recorded = timing.samples({"a": clock.action("a", 900, 800, 1, 2, 3)}, rounds=3, warm_up=2)
    assert recorded["a"] == pytest.approx([1, 2, 3])


def test_before_runs_ahead_of_every_call_and_is_not_timed(timing: ModuleType, clock: Clock) -> None:
    actions = {"a": clock.action("a", 5), "b": clock.action("b", 7)}
    recorded = timing.samples(actions, rounds=2, warm_up=1, before=clock.action("-", 100))
    assert "".join(clock.calls) == "-a-b" * 3
    assert recorded == {"a": pytest.approx([5, 5]), "b": pytest.approx([7, 7])}


def test_medians_are_in_milliseconds_and_one_slow_call_does_not_move_them(timing: ModuleType, clock: Clock) -> None:
    actions = {("kit", 1): clock.action("a", 4, 4, 500, 4, 4), ("kit", 2): clock.action("b", 1, 2, 3, 4)}
    found = timing.medians(actions, rounds=4, warm_up=0)
    assert found == {("kit", 1): pytest.approx(4), ("kit", 2): pytest.approx(2.5)}


def test_median_of_one_action(timing: ModuleType, clock: Clock) -> None:
    assert timing.median(clock.action("a", 99, 1, 2, 3), rounds=3) == pytest.approx(2)


@pytest.mark.parametrize(
    "options", [{"rounds": 0}, {"rounds": 1, "in_a_row": 0}, {"rounds": 1, "warm_up": -1}], ids=str
)
def test_counts_that_measure_nothing_are_errors(timing: ModuleType, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least one action, one round"):
        timing.samples({"a": lambda: None}, **options)


def test_no_action_is_an_error(timing: ModuleType) -> None:
    with pytest.raises(ValueError, match="0 actions"):
        timing.medians({}, rounds=1)


def test_as_text(timing: ModuleType) -> None:
    assert timing.as_text({"fp32": 5.694, "int8": 4.2}) == "fp32 5.69 ms, int8 4.20 ms"
