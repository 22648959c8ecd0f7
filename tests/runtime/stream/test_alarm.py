import pytest

from msc_edge.runtime.stream.alarm import Debounce
from msc_edge.runtime.stream.config import AlarmConfig, MofN

LETTERS = {"r": "reject", "w": "warn", ".": "normal"}


def rule(m: int, n: int, cooldown: float = 0) -> AlarmConfig:
    return AlarmConfig(after=MofN(m=m, n=n), cooldown=cooldown)


def events(debounce: Debounce, verdicts: str, start: int = 0) -> dict[int, int]:
    """The frames, one a second, that raise an event, and the rejects that each of them counts."""
    found = {
        second: debounce.event_for(LETTERS[letter], second)  # pyright: ignore[reportArgumentType]
        for second, letter in enumerate(verdicts, start)
    }
    return {second: suppressed for second, suppressed in found.items() if suppressed is not None}


@pytest.mark.parametrize(
    ("verdicts", "m", "n", "cooldown", "expected"),
    [
        ("..r.rr.", 1, 1, 0, [2, 4, 5]),
        ("wwww", 1, 1, 0, []),
        ("r.r", 2, 3, 0, [2]),
        ("r..r", 2, 3, 0, []),
        ("rrr", 3, 3, 0, [2]),
        ("rrrrrr", 3, 3, 0, [2, 5]),
        ("rrrrrr", 2, 3, 0, [1, 3, 5]),
        ("rrrrrrrrrr", 1, 1, 4, [0, 4, 8]),
        ("r...r...", 1, 1, 4, [0, 4]),
        ("rr..........rr", 2, 2, 5, [1, 13]),
    ],
)
def test_m_rejects_among_the_last_n_frames_raise_an_event_after_the_cooldown(
    verdicts: str, m: int, n: int, cooldown: float, expected: list[int]
) -> None:
    assert list(events(Debounce(rule(m, n, cooldown)), verdicts)) == expected


def test_an_event_counts_the_rejects_before_it_that_raised_none() -> None:
    """A cooldown that swallows 30 rejects must not hide that they were 30."""
    assert events(Debounce(rule(1, 1, 31)), "r" * 32) == {0: 0, 31: 30}
    assert events(Debounce(rule(2, 3)), "r..rr..r") == {4: 2}
    assert events(Debounce(rule(1, 1)), "rrr") == {0: 0, 1: 0, 2: 0}


def test_a_rule_can_be_replaced_while_frames_arrive() -> None:
    debounce = Debounce(rule(3, 5))
    assert events(debounce, "rr") == {}
    debounce.rule = rule(1, 1, 10)
    assert events(debounce, "rr", start=2) == {2: 2}
    debounce.rule = rule(2, 2)
    assert events(debounce, "r.rr", start=4) == {4: 1, 7: 1}
