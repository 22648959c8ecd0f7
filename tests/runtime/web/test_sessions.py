from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.responses import Response

from msc_edge.runtime.web.sessions import Sessions

TOKEN = "0123456789abcdef-secret"


@pytest.fixture
def sessions(clock: Any) -> Sessions:
    return Sessions(TOKEN, secure=False, now=clock)


def cookie_of(response: Response) -> Headers:
    return Headers({"cookie": response.headers["set-cookie"].partition(";")[0]})


def opened(sessions: Sessions) -> Headers:
    response = Response()
    assert sessions.open(f" {TOKEN}\n", response, address="10.0.0.1") == "open"
    return cookie_of(response)


def test_a_session_ends_after_twelve_hours(sessions, clock):
    headers = opened(sessions)
    clock.now = 12 * 3600 - 1
    assert sessions.knows(headers)
    clock.now += 2
    assert not sessions.knows(headers)


def test_sessions_are_independent_and_cannot_be_guessed(sessions):
    names = {opened(sessions)["cookie"] for _ in range(50)}
    assert len(names) == 50
    assert all(len(name) > 50 for name in names)


@pytest.mark.parametrize(
    "cookie", ["", "x", "msc_edge_session=", "msc_edge_session=guess", '"', "msc_edge_session=a\x00b"]
)
def test_other_cookies_are_nothing(sessions, cookie):
    opened(sessions)
    assert not sessions.knows(Headers({"cookie": cookie}))
    assert not sessions.knows(Headers({}))


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü"])
def test_a_wrong_token_opens_nothing_and_delays_the_next_of_its_address(sessions, clock, token):
    response = Response()
    assert sessions.open(token, response, address="10.0.0.1") == "wrong"
    assert "set-cookie" not in response.headers
    assert sessions.open(TOKEN, Response(), address="10.0.0.1") == "too soon"
    assert sessions.open(TOKEN, Response(), address="10.0.0.2") == "open"
    clock.now += 1.1
    assert sessions.open(TOKEN, Response(), address="10.0.0.1") == "open"


def test_a_flood_of_addresses_is_slowed_down_and_forgotten(sessions, clock):
    found = [
        sessions.open("wrong", Response(), address=f"10.0.{number // 250}.{number % 250}") for number in range(1500)
    ]
    assert found == ["wrong"] * 1000 + ["too soon"] * 500
    assert sessions.open(TOKEN, Response(), address="10.9.9.9") == "open"
    clock.now += 1.1
    assert sessions.open("wrong", Response(), address="10.9.9.8") == "wrong"


def test_the_oldest_session_gives_way(sessions):
    first, second = opened(sessions), opened(sessions)
    for _ in range(99):
        opened(sessions)
    assert not sessions.knows(first)
    assert sessions.knows(second)


@pytest.mark.parametrize("secure", [False, True])
def test_the_cookie_is_kept_from_scripts_and_other_sites(secure):
    response = Response()
    Sessions(TOKEN, secure=secure).open(TOKEN, response, address="10.0.0.1")
    parts = {part.strip().lower() for part in response.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert ("secure" in parts) == secure
