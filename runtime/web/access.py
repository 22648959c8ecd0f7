"""Who may use a server: the token, and requests that web pages make."""

import hashlib
import hmac
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from msc_edge.runtime.web.error_response import error_response
from msc_edge.runtime.web.sessions import Sessions

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Access:
    """ASGI middleware: refuses requests without the token, those that a web page of another site makes, and those that
    a proxy in front of this server may have read differently.

    A page may send requests to 127.0.0.1 from the browser of this PC: under its own host name, if its name server says
    that this is 127.0.0.1 (DNS rebinding), or as a form, without reading the response. Other programs send neither
    such a `Host` nor an `Origin`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        hosts: frozenset[str] | None,
        open_paths: frozenset[str] = frozenset(),
        sessions: Sessions | None = None,
        login: str | None = None,
    ) -> None:
        """`hosts`: the names in the `Host` header that are accepted besides those of loopback; None: any.

        `open_paths`: those that need no token; they must show nothing about kits and images. `sessions`: of browsers,
        which log in at the path `login`.
        """
        self._app = app
        self._open, self._sessions, self._login = open_paths, sessions, login
        self._token = None if token is None else _digest(f"Bearer {token}")
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        headers = Headers(scope=scope)
        refused = None
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts | _LOOPBACK:
            refused = error_response(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the Host header names neither 127.0.0.1 nor localhost, and this server answers to no other name, "
                "because web pages could reach it by one; use 127.0.0.1 or localhost in the address",
            )
        elif "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may take the other one, and see another end of the request (RFC 9112, section 6.3).
            refused = error_response(
                HTTPStatus.BAD_REQUEST, "the request has both Content-Length and Transfer-Encoding; send one of them"
            )
        elif not _same_origin(headers):
            refused = error_response(
                HTTPStatus.FORBIDDEN,
                "requests of web pages from another address (header Origin) are refused; send it from a program",
            )
        elif not (scope["path"] in self._open or self._is_authorized(headers)):
            if self._login and "text/html" in headers.get("accept", ""):
                await RedirectResponse(self._login, 303)(scope, receive, send)
                return
            refused = error_response(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong; send that of the server in the header 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": 'Bearer realm="msc-edge"'},
            )
        await (refused or self._app)(scope, receive, send)

    def _is_authorized(self, headers: Headers) -> bool:
        if self._token is None or (self._sessions and self._sessions.knows(headers)):
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        # Of equal length, so that the time of the comparison depends on nothing.
        return hmac.compare_digest(_digest(f"{scheme.capitalize()} {token.strip()}"), self._token)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _name(host: str) -> str | None:
    """The name in a `Host` header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _same_origin(headers: Headers) -> bool:
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")
