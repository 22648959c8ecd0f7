import itertools

from msc_edge.runtime.stream.sources.health import StateChange
from msc_edge.runtime.stream.sources.rate_limit import MOST, WINDOW, RateLimit


def flapping(changes: int, *, every: float) -> list[tuple[float, StateChange]]:
    """What is told of a camera that is up and lost by turns, so many times, and then stays as it is."""
    damper, told, moment = RateLimit(), [], 0.0
    for number in range(changes):
        damper.take(StateChange("source_lost" if number % 2 else "source_up", "it is so"))
        told += [(moment, turn) for turn in damper.due(moment)]
        moment += every
    end = moment + 2 * WINDOW
    while moment < end:
        told += [(moment, turn) for turn in damper.due(moment)]
        moment += 1
    return told


def test_a_few_changes_are_told_at_once_and_as_they_are() -> None:
    told = flapping(5, every=2)
    assert [at for at, _ in told] == [0, 2, 4, 6, 8]
    assert {turn.reason for _, turn in told} == {"it is so"}


def test_many_changes_are_ten_a_minute_and_the_end_is_told() -> None:
    for changes, every in ((3000, 0.1), (1001, 0.3), (300, 1.0)):
        told = flapping(changes, every=every)
        times = [at for at, _ in told]
        for start in range(450):
            assert sum(start <= at < start + WINDOW for at in times) <= MOST
        assert 20 <= len(told) <= 70
        # Each is a change from the one before, and the last one is how it stayed.
        assert all(one.to != other.to for (_, one), (_, other) in itertools.pairwise(told))
        assert told[-1][1].to == ("source_up" if changes % 2 else "source_lost")
        assert any("changes in the last minute, not told" in turn.reason for _, turn in told)
