"""Who uses the page: log-in, roles, and the token that each change needs."""

import asyncio
import base64
import binascii
import hmac
import logging
import secrets
from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from msc_edge.errors import MscEdgeError
from msc_edge.runtime.stream.page.audit import AuditLog
from msc_edge.runtime.stream.page.reasons import as_text, reason_in
from msc_edge.runtime.stream.page.snapshot import PageSettings
from msc_edge.runtime.stream.page.texts import texts_of
from msc_edge.runtime.web.error_response import error_response
from msc_edge.runtime.web.log_in_limit import LogInLimit
from msc_edge.runtime.web.user_sessions import UserSession, UserSessions
from msc_edge.runtime.web.users import Role, User, UsersFile

_LOG = logging.getLogger("msc_edge")
LOG_IN = "/login"
_OPEN = ("/login", "/static/", "/language/", "/healthz")  # they show nothing of the station
_BY_PASSWORD = ("/metrics", "/readyz")  # for programs, which send name and password with each request
# Where nobody needs to log in: who is at this PC may do all; who comes from the network, what does not change the kit.
_LOCAL, _ANYBODY = User("local", "engineer"), User("anybody", "operator")


class People:
    """The users of the page, and those who have logged in."""

    def __init__(self, settings: PageSettings, audit: AuditLog) -> None:
        """UsageError for a users file that cannot be used."""
        self._users = UsersFile(settings.users) if settings.users else None
        self._sessions = UserSessions(hours=settings.session_hours, secure=settings.web.scheme == "https")
        self._limit = LogInLimit()
        self._audit = audit
        self._checking = asyncio.Lock()  # one password at a time: each takes 64 MB
        self._open = UserSession(_LOCAL if settings.is_local else _ANYBODY, secrets.token_urlsafe(32), 0.0)

    @property
    def log_in_is_needed(self) -> bool:
        """Whether there is a users file."""
        return self._users is not None

    def session(self, headers: Headers) -> UserSession | None:
        """The session of a request; None where its user must log in, was removed, or has another password now."""
        if self._users is None:
            return self._open
        found = self._sessions.find(headers)
        return found if found and self._users.users().get(found.user.name) == found.user else None

    async def verified(self, name: str, password: str, address: str) -> User | float | None:
        """The user with this name and password; None where one is wrong; the seconds to wait after several of those."""
        assert self._users is not None
        async with self._checking:
            if (wait := self._limit.wait(address, name)) > 0:
                return wait
            user = await asyncio.to_thread(self._users.verified, name, password)
            if user is None:
                self._limit.failed(address, name)
            else:
                self._limit.succeeded(address, name)
        return user

    async def log_in(self, request: Request, name: str, password: str, response: RedirectResponse) -> float | None:
        """Open a session, with its cookie in the response: 0. None for a wrong password, else the seconds to wait."""
        address = address_of(request)
        outcome = await self.verified(name, password, address)
        if isinstance(outcome, User):
            self._audit.add("log_in", who=outcome.name, role=outcome.role, address=address)
            self._sessions.open(outcome, response)
            return 0.0
        if outcome is None:
            self._audit.add("log_in_failed", who=name[:63], role="", address=address)
        return outcome

    def log_out(self, request: Request, response: RedirectResponse) -> None:
        """End the session of a request."""
        user = user_of(request)
        self._audit.add("log_out", who=user.name, role=user.role, address=address_of(request))
        self._sessions.close(request.headers, response)

    async def may_read(self, scope: Scope, headers: Headers) -> bool:
        """Whether a program may read metrics: by the name and the password in its request."""
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        client = scope.get("client")
        return isinstance(await self.verified(name, password, client[0] if client else ""), User)


class LogInNeeded:
    """ASGI middleware: requests without a session are sent to the log-in, and changes without its token are refused.

    The user and the token of the session are in the scope of what passes.
    """

    def __init__(self, app: ASGIApp, people: People) -> None:
        self._app, self._people = app, people

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        try:
            refused = await self._refusal(scope, Headers(scope=scope))
        except MscEdgeError as error:  # the users file cannot be read any more; where it is concerns nobody else
            _LOG.error("page: %s", error)
            refused = error_response(
                HTTPStatus.SERVICE_UNAVAILABLE, "the users of this page cannot be read; the log of the stream says why"
            )
        await (refused or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """The response to a request that is refused; None for one that may pass."""
        session, path = self._people.session(headers), scope["path"]
        scope["user"], scope["token"] = (session.user, session.token) if session else (None, "")
        if session is None and not path.startswith(_OPEN):
            if path.startswith(_BY_PASSWORD):
                if await self._people.may_read(scope, headers):
                    return None
                return error_response(
                    HTTPStatus.UNAUTHORIZED,
                    "send the name and the password of a user of the page with the request (HTTP basic)",
                    {"WWW-Authenticate": 'Basic realm="msc-edge"'},
                )
            if "text/html" in headers.get("accept", ""):
                return RedirectResponse(f"{LOG_IN}?to={quote(_path_and_query(scope), safe='')}", 303)
            return error_response(HTTPStatus.UNAUTHORIZED, "nobody has logged in, or the session has ended")
        if (
            session
            and scope["method"] not in ("GET", "HEAD")
            and path != LOG_IN
            and not hmac.compare_digest(headers.get("x-token", "").encode(), session.token.encode())
        ):
            reason = "this page is from an earlier session; load it again, and repeat the change"
            return error_response(HTTPStatus.FORBIDDEN, as_text(reason_in(texts_of(Request(scope)), reason)))
        return None


def _path_and_query(scope: Scope) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{scope['path']}?{query}" if query else scope["path"]


def user_of(request: Request) -> User:
    """The user of a request that has passed `LogInNeeded`."""
    return request.scope["user"]


def require(request: Request, role: Role) -> User:
    """The user, who must have this role or a later one; else 403."""
    user = user_of(request)
    if not user.may(role):
        raise HTTPException(
            HTTPStatus.FORBIDDEN, f"this needs the role {role}, and {user.name} is a {user.role}; ask an engineer"
        )
    return user


def address_of(request: Request) -> str:
    """The address of the client."""
    return request.client.host if request.client else ""
