"""Logging in and out, and the choice of the language."""

import math
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from msc_edge.runtime.stream.page.people import LOG_IN, People
from msc_edge.runtime.stream.page.rendering import page
from msc_edge.runtime.stream.page.texts import COOKIE, LANGUAGES

_YEAR = 365 * 86400  # seconds
_LONGEST_FORM = 10_000  # bytes


class LogInPages:
    """Forms and links that every visitor may use."""

    def __init__(self, people: People) -> None:
        self._people = people

    def routes(self) -> list[Route]:
        """The routes of these pages."""
        return [
            Route(LOG_IN, self.show, methods=["GET"]),
            Route(LOG_IN, self.log_in, methods=["POST"]),
            Route("/logout", self.log_out, methods=["POST"]),
            Route("/language/{language}", self.language),
        ]

    def show(self, request: Request) -> Response:
        """The form."""
        if not self._people.log_in_is_needed:
            return RedirectResponse("/", 303)
        return page(request, "log_in.html.j2", outcome="", seconds=0, to=_target(request), name="")

    async def log_in(self, request: Request) -> Response:
        """Check a name and a password."""
        if not self._people.log_in_is_needed:
            return RedirectResponse("/", 303)
        if int(request.headers.get("content-length", "0") or 0) > _LONGEST_FORM or (
            "transfer-encoding" in request.headers
        ):
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a form for a log-in has at most 10 kB")
        form = await request.form(max_files=0, max_fields=10)
        name, response = str(form.get("name", "")).strip(), RedirectResponse(_target(request), 303)
        wait = await self._people.log_in(request, name, str(form.get("password", "")), response)
        if wait == 0:
            return response
        return page(
            request,
            "log_in.html.j2",
            status=HTTPStatus.UNAUTHORIZED if wait is None else HTTPStatus.TOO_MANY_REQUESTS,
            outcome="wrong" if wait is None else "wait",
            seconds=math.ceil(wait or 0),
            to=_target(request),
            name=name,
        )

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        response = RedirectResponse(LOG_IN, 303)
        self._people.log_out(request, response)
        return response

    async def language(self, request: Request) -> Response:
        """Choose a language, and go back."""
        language = request.path_params["language"]
        if language not in LANGUAGES:
            raise HTTPException(404)
        response = RedirectResponse(_target(request), 303)
        response.set_cookie(COOKIE, language, max_age=_YEAR, samesite="lax", path="/")
        return response


def _target(request: Request) -> str:
    """The page of this server to go to: never that of another one."""
    target = request.query_params.get("to", "/")
    is_local = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return target if is_local else "/"
