"""The web application of the studio."""

import logging
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from msc_edge.errors import MscEdgeError
from msc_edge.runtime.web.access import Access
from msc_edge.runtime.web.early_responses import EarlyResponses
from msc_edge.runtime.web.sessions import Sessions
from msc_edge.runtime.web.settings import WebSettings
from msc_edge.studio.check_pages import CheckPages
from msc_edge.studio.comparison_pages import ComparisonPages
from msc_edge.studio.project_pages import ProjectPages
from msc_edge.studio.removal_pages import RemovalPages
from msc_edge.studio.rendering import page, see, static
from msc_edge.studio.result_pages import ResultPages
from msc_edge.studio.training_pages import TrainingPages
from msc_edge.studio.wording import in_words_of_pages
from msc_edge.studio.workspace import Workspace

_LOG = logging.getLogger("msc_edge")
LOGIN = "/login"
_OPEN = frozenset({LOGIN, "/static/base.css", "/static/studio.css", "/static/icon.svg"})


def create_app(workspace: Workspace, settings: WebSettings, *, hosts: frozenset[str] | None) -> ASGIApp:
    """The application; `hosts`: see `Access`."""
    sessions = Sessions(settings.token, secure=settings.scheme == "https") if settings.token else None

    async def log_in(request: Request) -> Response:
        if request.method == "GET" or sessions is None:
            return page("login.html.j2", outcome="")
        form = await request.form()
        response = see()
        address = request.client.host if request.client else ""
        outcome = sessions.open(str(form.get("token", "")), response, address=address)
        return response if outcome == "open" else page("login.html.j2", outcome=outcome, status=HTTPStatus.UNAUTHORIZED)

    app = Starlette(
        routes=[
            Route(LOGIN, log_in, methods=["GET", "POST"]),
            Route("/static/{name}", static),
            *ProjectPages(workspace).routes(),
            *CheckPages(workspace).routes(),
            *RemovalPages(workspace).routes(),
            *TrainingPages(workspace).routes(),
            *ResultPages(workspace).routes(),
            *ComparisonPages(workspace).routes(),
        ],
        exception_handlers={
            HTTPException: _refuse,
            MscEdgeError: _fail,
            ClientDisconnect: _disconnected,
            Exception: _defect,
        },
    )
    guarded = Access(app, token=settings.token, hosts=hosts, open_paths=_OPEN, sessions=sessions, login=LOGIN)
    return EarlyResponses(guarded, timeout=settings.timeout)


def _problem(request: Request, status: int, message: str) -> Response:
    """An error as a page, or as JSON for a script."""
    if "text/html" in request.headers.get("accept", ""):
        return page("problem.html.j2", status=status, message=message, back=_back(request))
    return JSONResponse({"error": message}, status)


def _back(request: Request) -> str:
    """The page that the request came from, on this server."""
    origin, path = str(request.base_url), request.headers.get("referer", "")
    return f"/{path[len(origin) :]}" if path.startswith(origin) else "/"


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "there is no such page", 405: "this page takes no such request"}
    phrase = HTTPStatus(error.status_code).phrase
    return _problem(
        request, error.status_code, known.get(error.status_code, phrase) if error.detail == phrase else error.detail
    )


async def _fail(request: Request, error: Exception) -> Response:
    return _problem(request, HTTPStatus.BAD_REQUEST, in_words_of_pages(str(error)))


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody receives it


async def _defect(request: Request, error: Exception) -> Response:
    _LOG.error("%s: %s", request.url.path, error, exc_info=error)
    return _problem(
        request, HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of msc-edge; the terminal of the studio shows the details"
    )
