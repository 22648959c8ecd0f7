from typing import Any

import pytest

from msc_edge.runtime.web.log_in_limit import LogInLimit


@pytest.fixture
def limit(clock: Any) -> LogInLimit:
    return LogInLimit(clock)


def test_the_wait_of_an_address_doubles_from_the_third_failure_on(limit) -> None:
    waits = []
    for _ in range(14):
        limit.failed("10.0.0.1", "anna")
        waits.append(limit.wait("10.0.0.1", "other"))
    assert waits[:6] == [0, 0, 1, 2, 4, 8]
    assert waits[-1] == 300


def test_guessing_a_whole_day_is_less_than_four_hundred_passwords(limit, clock) -> None:
    tried = 0
    while clock.now < 86400:
        clock.now += limit.wait("10.0.0.1", "anna")
        limit.failed("10.0.0.1", "anna")
        tried += 1
    assert tried < 400


def test_other_addresses_do_not_wait_and_a_name_waits_for_many_addresses_only(limit) -> None:
    for _ in range(3):
        limit.failed("10.0.0.1", "anna")
    assert limit.wait("10.0.0.2", "anna") == 0
    for number in range(30):
        limit.failed(f"10.0.1.{number}", "anna")
    assert limit.wait("10.0.0.2", "anna") > 0
    assert limit.wait("10.0.0.2", "ben") == 0


def test_a_right_password_and_an_hour_forget_the_wrong_ones(limit, clock) -> None:
    for _ in range(5):
        limit.failed("10.0.0.1", "anna")
    limit.succeeded("10.0.0.1", "anna")
    assert limit.wait("10.0.0.1", "anna") == 0
    for _ in range(5):
        limit.failed("10.0.0.1", "anna")
    clock.now += 3601
    limit.failed("10.0.0.1", "anna")
    assert limit.wait("10.0.0.1", "anna") == 0


def test_a_flood_of_addresses_needs_bounded_memory_and_stops_guessing(limit, clock) -> None:
    for number in range(2000):
        if limit.wait(f"address {number}", f"name {number}") == 0:
            limit.failed(f"address {number}", f"name {number}")
    assert limit.wait("10.0.0.1", "anna") == 1
    clock.now += 3600
    assert limit.wait("10.0.0.1", "anna") == 0
