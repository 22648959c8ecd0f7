"""/metrics for Prometheus, /healthz and /readyz for a supervisor."""

import asyncio
import time
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from msc_edge.runtime.stream.page.live import LiveState

_FRESH = 1.0  # seconds for which metrics serve several requests
_PATIENCE = 3.0  # seconds to wait for metrics of the stream
_HEADERS = {"Cache-Control": "no-store"}


class HealthPages:
    """The state of the stream for programs."""

    def __init__(self, live: LiveState) -> None:
        self._live = live

    def routes(self) -> list[Route]:
        """The routes of these pages."""
        return [
            Route("/metrics", self.metrics),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
        ]

    async def metrics(self, _: Request) -> Response:
        """The metrics of the stream; 503 when it does not answer."""
        asked = time.monotonic()
        while True:
            if (found := self._live.metrics) and found[0] > asked - _FRESH:
                return Response(found[1], media_type=CONTENT_TYPE_LATEST, headers=_HEADERS)
            if time.monotonic() - asked > _PATIENCE:
                return self._silent()
            self._live.want_metrics()
            await asyncio.sleep(0.05)

    async def healthz(self, _: Request) -> Response:
        """200 while the stream answers."""
        return self._silent() if self._live.is_silent or self._live.snapshot is None else _text(HTTPStatus.OK, "ok\n")

    async def readyz(self, _: Request) -> Response:
        """200 while all sources are scored, else 503 with the reasons."""
        snapshot = self._live.snapshot
        if self._live.is_silent or snapshot is None:
            return self._silent()
        if reasons := snapshot.status.not_ready:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons))
        return _text(HTTPStatus.OK, "ready\n")

    def _silent(self) -> Response:
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"the stream has not answered for {self._live.age:.0f} s\n")


def _text(status: HTTPStatus, text: str) -> Response:
    return PlainTextResponse(text.encode(errors="replace"), status, headers=_HEADERS)
