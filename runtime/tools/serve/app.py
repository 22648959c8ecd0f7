"""The web application: one function for each path."""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from msc_edge.drawing import encode_image
from msc_edge.errors import MscEdgeError
from msc_edge.overlay import overlay
from msc_edge.runtime.batch import score_content
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.formats import JsonLinesFormat, rounded
from msc_edge.runtime.results.image_result import IMAGE_FIELDS, ImageResult
from msc_edge.runtime.tools.serve.bodies import RETRY_AFTER, Bodies
from msc_edge.runtime.tools.serve.docs_page import CONTENT_SECURITY_POLICY, docs_page
from msc_edge.runtime.tools.serve.form import MediaType, image_in
from msc_edge.runtime.tools.serve.kit_facts import KitFacts
from msc_edge.runtime.tools.serve.openapi import OPEN, openapi_document
from msc_edge.runtime.tools.serve.request_metrics import CountedResponses, RequestMetrics
from msc_edge.runtime.tools.serve.scoring_pool import ScoringPool
from msc_edge.runtime.tools.serve.settings import ServeSettings
from msc_edge.runtime.web.access import Access
from msc_edge.runtime.web.early_responses import EarlyResponses
from msc_edge.runtime.web.error_response import error_response

_LOG = logging.getLogger("msc_edge")
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs each broken form; the client gets the error
_ROW = JsonLinesFormat(IMAGE_FIELDS)
_HOST = re.compile(r"[\w.-]{1,255}(:\d{1,5})?|\[[\da-fA-F:.]{2,45}\](:\d{1,5})?", re.ASCII)


@dataclass(frozen=True)
class Service:
    """What answers the requests of one server. Close its pool after the last one."""

    detector: Detector
    settings: ServeSettings
    metrics: RequestMetrics
    pool: ScoringPool
    bodies: Bodies
    facts: KitFacts

    @classmethod
    def of(cls, detector: Detector, settings: ServeSettings) -> "Service":
        """A service for an open kit."""
        metrics = RequestMetrics(detector.kit)
        pool = ScoringPool(workers=settings.workers, queue=settings.queue, metrics=metrics)
        return cls(detector, settings, metrics, pool, Bodies(settings), KitFacts.of(detector, settings))

    async def score(self, request: Request) -> Response:
        """The result of an image, as a row of `msc-edge score`."""
        scored, _ = await self._scored(request)
        return Response(_ROW.encode(scored), media_type="application/json")

    async def heatmap(self, request: Request) -> Response:
        """The image with its heatmap over it, as PNG."""
        if not self.facts.heatmaps:
            raise HTTPException(
                HTTPStatus.NOT_FOUND,
                "this kit compares whole images only and has no heatmaps; train and export with --scores both",
            )
        scored, png = await self._scored(request, draw=True)
        assert scored.result, "an image without a result is an error"
        headers = {"Msc-Edge-Score": rounded(scored.result.score, 6), "Msc-Edge-Verdict": scored.result.verdict}
        return Response(png, media_type="image/png", headers=headers)

    async def _scored(self, request: Request, *, draw: bool = False) -> tuple[ImageResult, bytes]:
        media_type = MediaType.of(dict(request.headers))
        self.pool.refuse_if_full()  # before the body is read
        async with self.bodies.read(request) as body:
            (scored, png), seconds = await self.pool.run(lambda: self._score(body, media_type, draw=draw))
        self.metrics.add_image(scored, seconds)
        if scored.result is None:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"the image cannot be read: {scored.error}")
        return scored, png

    def _score(self, body: bytearray, media_type: MediaType, *, draw: bool) -> tuple[ImageResult, bytes]:
        """Score on this thread."""
        name, data = image_in(body, media_type)
        drawn: list[bytes] = []

        def on_image(scored: ImageResult, image: np.ndarray) -> None:
            found = scored.result.grid_map if scored.result else None
            if draw and found is not None:
                drawn.append(encode_image(overlay(image, found), ".png"))

        return score_content(self.detector, name, data, on_image=on_image), b"".join(drawn)

    async def kit(self, _: Request) -> Response:
        """The kit, and what the server accepts."""
        return JSONResponse(self.facts.model_dump(mode="json"))

    async def healthz(self, _: Request) -> Response:
        """Whether the server runs."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Whether another image would be accepted."""
        self.pool.refuse_if_full()
        return PlainTextResponse("ready\n")

    async def metrics_page(self, _: Request) -> Response:
        """Metrics for Prometheus."""
        text = await asyncio.to_thread(self.metrics.as_text)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self._document(request))

    async def docs(self, request: Request) -> Response:
        """The OpenAPI document as a page."""
        page = await asyncio.to_thread(docs_page, self._document(request))
        return HTMLResponse(page, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    def _document(self, request: Request) -> dict[str, Any]:
        host = request.headers.get("host", "")
        address = f"{self.settings.scheme}://{host if _HOST.fullmatch(host) else '127.0.0.1'}"
        return openapi_document(self.facts, address=address, token=self.settings.token is not None)

    def routes(self) -> list[Route]:
        """The paths of the server."""
        reading: dict[str, Callable[[Request], Any]] = {
            "/kit": self.kit,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": self.metrics_page,
            "/openapi.json": self.openapi,
            "/docs": self.docs,
        }
        return [
            Route("/score", self.score, methods=["POST"]),
            Route("/heatmap", self.heatmap, methods=["POST"]),
            *(Route(path, function, methods=["GET"]) for path, function in reading.items()),
        ]


def create_app(service: Service, *, hosts: frozenset[str] | None) -> ASGIApp:
    """The application of a service; `hosts`: see `Access`."""
    routes = service.routes()
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _refuse,
            MscEdgeError: _fail,
            MemoryError: _no_memory,
            ClientDisconnect: _disconnected,
            Exception: _defect,
        },
    )
    app.router.redirect_slashes = False
    paths = frozenset(route.path for route in routes)
    guarded = Access(app, token=service.settings.token, hosts=hosts, open_paths=OPEN)
    return CountedResponses(EarlyResponses(guarded, timeout=service.settings.timeout), service.metrics, paths)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow", "another method")
    known = {
        404: "the server has no such path; GET /docs lists all paths",
        405: f"the path does not accept {request.method!r:.20}; use {allowed}",
    }
    detail = known.get(error.status_code) if error.detail == HTTPStatus(error.status_code).phrase else None
    return error_response(error.status_code, detail or error.detail, error.headers)


async def _fail(request: Request, error: Exception) -> Response:
    _LOG.error("%s: %s", request.url.path, error)
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


async def _no_memory(_: Request, __: Exception) -> Response:
    return error_response(
        HTTPStatus.SERVICE_UNAVAILABLE, "not enough memory for this image; shrink it, or try again later", RETRY_AFTER
    )


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody receives it


async def _defect(_: Request, __: Exception) -> Response:
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of msc-edge; see the log of the server")
