"""The web application of the page."""

import logging
from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from msc_edge.errors import MscEdgeError
from msc_edge.runtime.stream.page.audit import AuditLog
from msc_edge.runtime.stream.page.gallery import Gallery
from msc_edge.runtime.stream.page.gallery_pages import GalleryPages
from msc_edge.runtime.stream.page.health import HealthPages
from msc_edge.runtime.stream.page.learning import Learning
from msc_edge.runtime.stream.page.learning_pages import LearningPages
from msc_edge.runtime.stream.page.live import LiveState
from msc_edge.runtime.stream.page.live_pages import LivePages
from msc_edge.runtime.stream.page.log_in_pages import LogInPages
from msc_edge.runtime.stream.page.marks import Marks
from msc_edge.runtime.stream.page.people import LogInNeeded, People
from msc_edge.runtime.stream.page.reasons import Part, as_text, reason_in
from msc_edge.runtime.stream.page.records import Records
from msc_edge.runtime.stream.page.rendering import page, static
from msc_edge.runtime.stream.page.snapshot import PageSettings
from msc_edge.runtime.stream.page.texts import texts_of
from msc_edge.runtime.web.access import Access
from msc_edge.runtime.web.early_responses import EarlyResponses

_LOG = logging.getLogger("msc_edge")


def create_app(live: LiveState, records: Records, settings: PageSettings, *, hosts: frozenset[str] | None) -> ASGIApp:
    """The application; `hosts`: see `Access`."""
    audit = AuditLog(settings.folder)
    people = People(settings, audit)
    gallery, marks = Gallery(records.store), Marks(records.store, settings.folder)
    learning = Learning(marks, live.kits)
    app = Starlette(
        routes=[
            *LivePages(live, records).routes(),
            *GalleryPages(records, gallery, marks, audit, learned=learning.learned, kits=live.kits).routes(),
            *LearningPages(gallery, learning, audit).routes(),
            *HealthPages(live).routes(),
            *LogInPages(people).routes(),
            Route("/static/{name}", static),
        ],
        exception_handlers={
            HTTPException: _refuse,
            MscEdgeError: _fail,
            ClientDisconnect: _disconnected,
            Exception: _defect,
        },
    )
    app.state.station, app.state.log_in = settings.station, people.log_in_is_needed
    guarded = Access(LogInNeeded(app, people), token=None, hosts=hosts)
    return EarlyResponses(guarded, timeout=settings.web.timeout)


def _problem(request: Request, status: int, message: Sequence[Part]) -> Response:
    """An error as a page, or as JSON for a script."""
    if "text/html" in request.headers.get("accept", ""):
        return page(request, "problem.html.j2", status=status, message=message)
    return JSONResponse({"error": as_text(message), "parts": message}, status)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    t = texts_of(request)
    known = {404: t("problem.no_page"), 405: t("problem.no_method")}
    if error.detail == HTTPStatus(error.status_code).phrase and error.status_code in known:
        return _problem(request, error.status_code, [(known[error.status_code], "")])
    return _problem(request, error.status_code, reason_in(t, error.detail))


async def _fail(request: Request, error: Exception) -> Response:
    return _problem(request, HTTPStatus.BAD_REQUEST, reason_in(texts_of(request), str(error)))


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody receives it


async def _defect(request: Request, error: Exception) -> Response:
    _LOG.error("page %s: %s", request.url.path, error, exc_info=error)
    return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, [(texts_of(request)("problem.defect"), "")])
