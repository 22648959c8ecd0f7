import itertools

from msc_edge.runtime.stream.sources.health import StateChange
from msc_edge.runtime.stream.sources.rate_limit import MAX_CHANGES, WINDOW, RateLimit


def flapping(changes: int, *, every: float) -> list[tuple[float, StateChange]]:
    """The reported changes of a camera that is alternately up and lost, and then keeps its last state."""
    limit, reported, moment = RateLimit(), [], 0.0
    for number in range(changes):
        limit.add(StateChange("source_lost" if number % 2 else "source_up", "a reason"))
        reported += [(moment, change) for change in limit.due(moment)]
        moment += every
    end = moment + 2 * WINDOW
    while moment < end:
        reported += [(moment, change) for change in limit.due(moment)]
        moment += 1
    return reported


def test_a_few_changes_are_reported_at_once_and_unchanged() -> None:
    reported = flapping(5, every=2)
    assert [at for at, _ in reported] == [0, 2, 4, 6, 8]
    assert {change.reason for _, change in reported} == {"a reason"}


def test_of_many_changes_ten_a_minute_and_the_last_state_are_reported() -> None:
    for changes, every in ((3000, 0.1), (1001, 0.3), (300, 1.0)):
        reported = flapping(changes, every=every)
        times = [at for at, _ in reported]
        for start in range(450):
            assert sum(start <= at < start + WINDOW for at in times) <= MAX_CHANGES
        assert 20 <= len(reported) <= 70
        # Each differs from the one before, and the last one is the last state.
        assert all(one.to != other.to for (_, one), (_, other) in itertools.pairwise(reported))
        assert reported[-1][1].to == ("source_up" if changes % 2 else "source_lost")
        assert any("changes before it were not reported" in change.reason for _, change in reported)
