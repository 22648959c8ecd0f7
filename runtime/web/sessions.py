"""Browsers that have logged in with the token: a cookie each, known to this process only."""

import hmac
import secrets
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Literal

from starlette.datastructures import Headers
from starlette.responses import Response

_COOKIE = "msc_edge_session"
_HOURS = 12
_MOST = 100  # open sessions; the oldest one ends
_WAIT = 1.0  # seconds between two wrong tokens: guessing is hopeless


_MOST_ADDRESSES = 1000  # that wait at once; more are a flood

LogIn = Literal["open", "wrong", "too soon"]


class Sessions:
    """The open sessions. Used by the event loop only."""

    def __init__(self, token: str, *, secure: bool, now: Callable[[], float] = time.monotonic) -> None:
        """`secure`: whether the server speaks https; the cookie is then never sent without. `now`: seconds."""
        self._token, self._secure, self._now = token, secure, now
        self._ends: dict[str, float] = {}
        self._closed_until: dict[str, float] = {}

    def open(self, token: str, response: Response, *, address: str) -> LogIn:
        """Open a session, and put its cookie into a response. `address`: of the client.

        Right after a wrong token of the same address, no token is looked at: guessing takes a second each, and other
        addresses wait for nothing.
        """
        now = self._now()
        if now < self._closed_until.get(address, 0.0):
            return "too soon"
        if not hmac.compare_digest(token.strip().encode(), self._token.encode()):
            self._closed_until = {each: until for each, until in self._closed_until.items() if now < until}
            if len(self._closed_until) >= _MOST_ADDRESSES:
                return "too soon"
            self._closed_until[address] = now + _WAIT
            return "wrong"
        name = secrets.token_urlsafe(32)
        while len(self._ends) >= _MOST:
            del self._ends[next(iter(self._ends))]
        self._ends[name] = self._now() + 3600 * _HOURS
        response.set_cookie(
            _COOKIE, name, max_age=3600 * _HOURS, httponly=True, samesite="strict", secure=self._secure, path="/"
        )
        return "open"

    def knows(self, headers: Headers) -> bool:
        """Whether a request has the cookie of an open session."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._ends.get(cookie.value, 0.0) > self._now()
