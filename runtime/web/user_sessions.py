"""Browsers in which a user has logged in: a cookie each, known to this process only."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response

from msc_edge.runtime.web.users import User

_COOKIE = "msc_edge_user"
_MOST = 500  # open sessions; the oldest one ends


@dataclass(frozen=True, slots=True)
class UserSession:
    """A browser in which a user has logged in."""

    user: User
    token: str
    """What its pages send with each change, and no other site knows."""
    ends: float


class UserSessions:
    """The open sessions. Used by the event loop only."""

    def __init__(self, *, hours: float, secure: bool, now: Callable[[], float] = time.monotonic) -> None:
        """`hours` until a session ends. `secure`: whether the server speaks https. `now`: seconds."""
        self._seconds, self._secure, self._now = 3600 * hours, secure, now
        self._sessions: dict[str, UserSession] = {}

    def open(self, user: User, response: Response) -> None:
        """Open a session, and put its cookie into a response."""
        while len(self._sessions) >= _MOST:
            del self._sessions[next(iter(self._sessions))]
        key = secrets.token_urlsafe(32)
        self._sessions[key] = UserSession(user, secrets.token_urlsafe(32), self._now() + self._seconds)
        response.set_cookie(
            _COOKIE, key, max_age=int(self._seconds), httponly=True, samesite="strict", secure=self._secure, path="/"
        )

    def find(self, headers: Headers) -> UserSession | None:
        """The open session of a request; None without one."""
        session = self._sessions.get(key := _key(headers))
        if session is not None and session.ends <= self._now():
            del self._sessions[key]
            return None
        return session

    def close(self, headers: Headers, response: Response) -> None:
        """End the session of a request."""
        self._sessions.pop(_key(headers), None)
        response.delete_cookie(_COOKIE, httponly=True, samesite="strict", secure=self._secure, path="/")


def _key(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""
