"""Pages from templates, and the files that pages load."""

import json
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from msc_edge import __version__
from msc_edge.runtime.stream.page.texts import LANGUAGES, texts_of
from msc_edge.templates import template_environment

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_STATIC = {
    "station.css": "text/css",
    "common.js": "text/javascript",
    "live.js": "text/javascript",
    "chart.js": "text/javascript",
    "gallery.js": "text/javascript",
    "finding.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page in the language of the request. Texts are escaped, and control characters become escapes."""
    t = texts_of(request)
    user = request.scope.get("user")
    text = (
        _environment()
        .get_template(template)
        .render(
            t=t,
            station=request.app.state.station,
            log_in=request.app.state.log_in,
            languages=LANGUAGES,
            script_texts=json.dumps(t.of_script(), ensure_ascii=False),
            user=user,
            token=request.scope.get("token", ""),
            version=__version__,
            here=quote(request.url.path),
            **values,
        )
    )
    return HTMLResponse(text, status, HEADERS)


def static(request: Request) -> Response:
    """A style sheet, a script or the icon."""
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404)
    return Response(_content(name), media_type=_STATIC[name], headers=HEADERS | {"Cache-Control": "no-cache"})


@cache
def _content(name: str) -> bytes:
    return files("msc_edge.runtime.stream.page").joinpath("static", name).read_bytes()


def _moment(seconds: float) -> Markup:
    """A time, which the script of the page writes in the viewer's own."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="milliseconds"), f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    )


@cache
def _environment() -> Any:
    environment = template_environment("msc_edge.runtime.stream.page", "pages")
    environment.filters |= {"moment": _moment}
    return environment
