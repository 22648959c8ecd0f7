import pytest

from msc_edge.runtime.stream.alarm import Debounce

LETTERS = {"r": "reject", "w": "warn", ".": "normal"}


def alarms(verdicts: str, m: int, n: int, cooldown: float = 0) -> list[int]:
    """The frames, one a second, that raise an event."""
    debounce = Debounce(m, n, cooldown)
    return [second for second, letter in enumerate(verdicts) if debounce.raises_event(LETTERS[letter], second)]  # pyright: ignore[reportArgumentType]


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
    assert alarms(verdicts, m, n, cooldown) == expected
