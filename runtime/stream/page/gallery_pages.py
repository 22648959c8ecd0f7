"""The gallery of rejects and warnings, one finding with all that is known of it, and its marks."""

import json
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msc_edge.errors import UsageError
from msc_edge.runtime.kept_images import KeptImage
from msc_edge.runtime.stream.page.audit import AuditLog
from msc_edge.runtime.stream.page.finding_images import image_of, read_whole, small_copy
from msc_edge.runtime.stream.page.gallery import PAGE_SIZE, Filter, Gallery
from msc_edge.runtime.stream.page.marks import Marks
from msc_edge.runtime.stream.page.people import address_of, require, user_of
from msc_edge.runtime.stream.page.records import Records
from msc_edge.runtime.stream.page.rendering import HEADERS, page
from msc_edge.runtime.stream.page.texts import texts_of
from msc_edge.runtime.stream.page.wording import p_value_in_words

LearnedFrom = Callable[[dict[str, Any]], KeptImage | None]
Kits = Callable[[], Mapping[str, Path]]
_LONGEST_BODY = 10_000  # bytes
_MOST_NUMBERS = 2**63  # of rows in SQLite


class GalleryPages:
    """Rejects and warnings."""

    def __init__(
        self, records: Records, gallery: Gallery, marks: Marks, audit: AuditLog, *, learned: LearnedFrom, kits: Kits
    ) -> None:
        """`learned`: what was learned from a finding and counts. `kits`: the kits in use, by SHA-256."""
        self._records, self._gallery, self._marks, self._audit = records, gallery, marks, audit
        self._learned, self._kits = learned, kits

    def routes(self) -> list[Route]:
        """The routes of these pages."""
        return [
            Route("/parts", self.show),
            Route("/parts/{number:int}", self.show_one),
            Route("/parts/{number:int}/mark", self.mark, methods=["POST"]),
            Route("/parts/{number:int}/{name}.jpg", self.image),
        ]

    def show(self, request: Request) -> Response:
        """The gallery."""
        wanted = _filter(request)
        found = self._gallery.find(wanted, before=_number(request, "before"), count=PAGE_SIZE + 1)
        shown = found[:PAGE_SIZE]
        return page(
            request,
            "gallery.html.j2",
            found=shown,
            count=self._gallery.count(wanted),
            older=urlencode(wanted.query | {"before": str(shown[-1]["number"])}) if len(found) > PAGE_SIZE else "",
            wanted=wanted,
            query=urlencode(wanted.query),
            sources=sorted({*self._gallery.sources(), wanted.source} - {""}),
        )

    def show_one(self, request: Request) -> Response:
        """One finding."""
        finding, wanted = finding_of(request, self._gallery), _filter(request)
        number = finding["number"]
        return page(
            request,
            "part.html.j2",
            part=finding,
            image=image_of(finding, self._marks, drawn=False) is not None,
            overlay=image_of(finding, self._marks, drawn=True) is not None,
            nearest=self._records.thumbnail(finding["kit"], finding["nearest"][0]["row"]) is not None,
            words=p_value_in_words(texts_of(request), finding),
            newer=self._gallery.beside(number, wanted, "newer"),
            older=self._gallery.beside(number, wanted, "older"),
            query=urlencode(wanted.query),
            classes=self._marks.classes(),
            history=self._marks.history(finding["id"]),
            may_mark=user_of(request).may("operator"),
            learned=self._learned(finding),
            kit_is_active=finding["kit"] in self._kits(),
            may_learn=user_of(request).may("engineer"),
        )

    def image(self, request: Request) -> Response:
        """The image `frame`, `overlay`, `small` (for the gallery) or `nearest`."""
        finding, name = finding_of(request, self._gallery), request.path_params["name"]
        content: tuple[bytes, str] | None = None
        if name == "nearest":
            jpeg = self._records.thumbnail(finding["kit"], finding["nearest"][0]["row"])
            content = (jpeg, "image/jpeg") if jpeg else None
        elif name in ("frame", "overlay") and (path := image_of(finding, self._marks, drawn=name == "overlay")):
            content = read_whole(path)
        elif name == "small":
            path = image_of(finding, self._marks, drawn=True) or image_of(finding, self._marks, drawn=False)
            jpeg = small_copy(path) if path else None
            content = (jpeg, "image/jpeg") if jpeg else None
        if content is None:
            raise HTTPException(404, "this image was not saved, or was removed to free space")
        return Response(content[0], media_type=content[1], headers=HEADERS | {"Cache-Control": "private, max-age=3600"})

    async def mark(self, request: Request) -> Response:
        """Mark a finding, or withdraw its mark. The body: `{"action": ..., "defect": ...}`."""
        user = require(request, "operator")
        wanted = await json_body(request)

        def work() -> dict[str, Any]:
            finding = finding_of(request, self._gallery)
            action = str(wanted.get("action", ""))

            def audit(defect: str | None) -> None:
                self._audit.add(
                    f"mark_{action}",
                    who=user.name,
                    role=user.role,
                    address=address_of(request),
                    finding=finding["id"],
                    source=finding["source"],
                    defect=defect,
                    before=finding["mark"],
                    before_defect=finding["defect"],
                )

            self._marks.set(finding, action, str(wanted.get("defect") or ""), who=user.name, audit=audit)
            return finding_of(request, self._gallery)

        marked = await run_in_threadpool(work)
        return JSONResponse({"mark": marked["mark"], "defect": marked["defect"]}, headers=HEADERS)


def finding_of(request: Request, gallery: Gallery) -> dict[str, Any]:
    """The finding that a request is about; else 404."""
    number = request.path_params["number"]
    found = gallery.get(number) if number < _MOST_NUMBERS else None
    if found is None:
        raise HTTPException(404, "this part is not in the gallery any more; go back to all rejects and warnings")
    return found


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object in a request. UsageError where it is none."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a change has at most 10 kB")
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError("the request is not a JSON object")
    return found


def _filter(request: Request) -> Filter:
    given = request.query_params
    return Filter(
        source=given.get("source", ""),
        verdict=given.get("verdict", ""),
        mark=given.get("mark", ""),
        since=_seconds(given.get("since")),
        until=_seconds(given.get("until")),
    )


def _seconds(text: str | None) -> float | None:
    try:
        found = float(text) if text else None
    except ValueError:
        return None
    return found if found is not None and math.isfinite(found) else None


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 18 else None
