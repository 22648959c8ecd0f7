import pytest

from msc_edge.runtime.stream.alarm import Debounce, Raised, Suppressed, Waiting
from msc_edge.runtime.stream.config_sections import AlarmConfig, MofN

LETTERS = {"r": "reject", "w": "warn", ".": "normal"}


def rule(m: int, n: int, cooldown: float = 0) -> AlarmConfig:
    return AlarmConfig(after=MofN(m=m, n=n), cooldown=cooldown)


def events(debounce: Debounce, verdicts: str, start: int = 0) -> dict[int, int]:
    """The frames, one a second, that raise an event, and the rejects that each of them counts."""
    found = {
        second: debounce.add(LETTERS[letter], second)  # pyright: ignore[reportArgumentType]
        for second, letter in enumerate(verdicts, start)
    }
    return {second: alarm.suppressed for second, alarm in found.items() if isinstance(alarm, Raised)}


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


@pytest.mark.parametrize(
    ("verdicts", "m", "n", "cooldown", "expected"),
    [
        ("r.rrr", 2, 3, 0, {0: 1, 3: 1}),
        ("r...r", 2, 3, 0, {0: 1, 4: 1}),
        ("rr.r", 3, 4, 0, {0: 1, 1: 2}),
        ("rrr", 1, 1, 0, {}),
        (".w.", 2, 3, 0, {}),
        ("rrrrr", 2, 3, 9, {0: 1}),  # from the event at 1 on, the cooldown is the reason, and is reported at its end
    ],
)
def test_a_reject_that_the_rule_waits_with_says_how_many_there_are(
    verdicts: str, m: int, n: int, cooldown: float, expected: dict[int, int]
) -> None:
    debounce = Debounce(rule(m, n, cooldown))
    alarms = {second: debounce.add(LETTERS[letter], second) for second, letter in enumerate(verdicts)}  # pyright: ignore[reportArgumentType]
    waiting = {second: alarm for second, alarm in alarms.items() if isinstance(alarm, Waiting)}
    assert waiting == {second: Waiting(rejects, MofN(m=m, n=n)) for second, rejects in expected.items()}


def test_a_rule_can_be_replaced_while_frames_arrive() -> None:
    debounce = Debounce(rule(3, 5))
    assert events(debounce, "rr") == {}
    debounce.rule = rule(1, 1, 10)
    assert events(debounce, "rr", start=2) == {2: 2}
    debounce.rule = rule(2, 2)
    assert events(debounce, "r.rr", start=4) == {4: 1, 7: 1}


def test_rejects_in_a_cooldown_are_reported_once_when_it_has_ended() -> None:
    """Without a further reject nobody would know of them."""
    debounce = Debounce(rule(1, 1, 10))
    assert events(debounce, "rrr.r...") == {0: 0}
    assert debounce.take_after_cooldown(10.5) is None, "a reject that comes now would count them"
    assert debounce.take_after_cooldown(11) == Suppressed(3, since=1)
    assert debounce.take_after_cooldown(12) is None
    assert events(debounce, "r", start=13) == {13: 0}
    assert debounce.take_after_cooldown(30) is None
    assert events(debounce, "r.r", start=40) == {40: 0}
    assert events(debounce, "r", start=50) == {50: 1}, "counted by this event"
    assert debounce.take_after_cooldown(70) is None


def test_isolated_rejects_wait_for_the_next_event_or_the_end() -> None:
    """They are what `after` is for: each of them as an event would make it useless."""
    debounce = Debounce(rule(2, 3, 10))
    assert events(debounce, "rr" + 30 * "." + "r..r") == {1: 1}
    assert debounce.take_after_cooldown(32) is None, "none came in the cooldown"
    assert events(debounce, "..r", start=36) == {}
    assert debounce.take_after_cooldown(50) is None
    assert debounce.take_suppressed() == Suppressed(3, since=32)
    assert debounce.take_suppressed() is None
