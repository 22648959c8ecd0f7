from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.responses import Response

from msc_edge.runtime.web.user_sessions import UserSessions
from msc_edge.runtime.web.users import User

ANNA = User("anna", "operator", "hash")


@pytest.fixture
def sessions(clock: Any) -> UserSessions:
    return UserSessions(hours=8, secure=True, now=clock)


def opened(sessions: UserSessions) -> Headers:
    response = Response()
    sessions.open(ANNA, response)
    return Headers({"cookie": response.headers["set-cookie"].partition(";")[0]})


def test_a_session_ends_after_its_hours(sessions, clock) -> None:
    headers = opened(sessions)
    clock.now = 8 * 3600 - 1
    found = sessions.find(headers)
    assert found
    assert found.user == ANNA
    clock.now += 1
    assert sessions.find(headers) is None


def test_each_session_has_its_own_token(sessions) -> None:
    first, second = sessions.find(opened(sessions)), sessions.find(opened(sessions))
    assert first
    assert second
    assert first.token != second.token


@pytest.mark.parametrize("cookie", ["", "msc_edge_user=", "msc_edge_user=guessed", "a;b=;=", 'msc_edge_user="'])
def test_other_cookies_open_nothing(sessions, cookie: str) -> None:
    opened(sessions)
    assert sessions.find(Headers({"cookie": cookie})) is None


def test_a_closed_session_is_over(sessions) -> None:
    headers = opened(sessions)
    sessions.close(headers, Response())
    assert sessions.find(headers) is None


def test_many_sessions_end_the_oldest(sessions) -> None:
    first = opened(sessions)
    others = [opened(sessions) for _ in range(500)]
    assert sessions.find(first) is None
    assert sessions.find(others[-1])
