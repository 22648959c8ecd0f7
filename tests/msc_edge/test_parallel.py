import threading
from collections.abc import Iterator

import pytest

from msc_edge.parallel import ordered_map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    """The first task finishes last."""
    others_done = threading.Event()

    def square(number: int) -> int:
        if number == 0 and workers > 1:
            assert others_done.wait(timeout=30)
        if number == workers - 1:
            others_done.set()
        return number * number

    assert list(ordered_map(square, range(20), workers=workers)) == [number * number for number in range(20)]


def test_no_items_give_no_results() -> None:
    assert list(ordered_map(str, [], workers=3)) == []


def test_an_error_is_raised_in_place_of_its_result() -> None:
    results = ordered_map(lambda number: 6 // (3 - number), range(10), workers=2)
    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_items_are_taken_as_results_are_needed() -> None:
    """So a folder of any size needs little memory."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = ordered_map(str, items(), workers=3)
    for used in range(1, 50):
        next(results)
        assert taken <= used + 2 * 3


def test_tasks_that_have_not_started_are_cancelled_when_the_caller_stops() -> None:
    started: list[int] = []
    go_on = threading.Event()

    def task(number: int) -> int:
        started.append(number)
        assert number == 0 or go_on.wait(timeout=30)
        return number

    results = ordered_map(task, range(100), workers=1)
    assert next(results) == 0
    go_on.set()
    results.close()
    assert len(started) <= 2
