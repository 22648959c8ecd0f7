"""The live page: frames, verdicts, charts and the state of the station."""

import math
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msc_edge.runtime.stream.page.live import LiveState
from msc_edge.runtime.stream.page.records import Records
from msc_edge.runtime.stream.page.rendering import HEADERS, page
from msc_edge.runtime.stream.page.texts import texts_of

_LONGEST = 32 * 86400.0  # seconds that counts may be requested for


class LivePages:
    """What happens now."""

    def __init__(self, live: LiveState, records: Records) -> None:
        self._live, self._records = live, records

    def routes(self) -> list[Route]:
        """The routes of these pages."""
        return [
            Route("/", self.show),
            Route("/live", self.state),
            Route("/live/{source}.jpg", self.image),
            Route("/counts", self.counts),
        ]

    def show(self, request: Request) -> Response:
        """The page; its script asks for the rest."""
        snapshot = self._live.snapshot
        return page(
            request,
            "live.html.j2",
            sources=[each.name for each in snapshot.status.sources] if snapshot else [],
        )

    async def state(self, request: Request) -> Response:
        """The state as JSON. Not on a thread of its own: it is encoded already."""
        self._live.watch()
        found = self._live.as_json(self._records.failure, texts_of(request))
        return Response(found, media_type="application/json", headers=HEADERS)

    async def image(self, request: Request) -> Response:
        """The frame of a source, with its heatmap unless `plain` is requested."""
        found = self._live.image(request.path_params["source"], plain="plain" in request.query_params)
        if found is None:
            raise HTTPException(404, "there is no frame of this source yet")
        return Response(found, media_type="image/jpeg", headers=HEADERS)

    def counts(self, request: Request) -> Response:
        """Frames since a time, in seconds since 1970, by quarter of an hour."""
        try:
            since = float(request.query_params.get("since", ""))
        except ValueError:
            since = math.nan
        now = time.time()
        if not now - _LONGEST <= since <= now:
            raise HTTPException(400, "`since` must be a time of the last month, in seconds since 1970")
        return JSONResponse({"counts": self._records.counts(since, now)}, headers=HEADERS)
