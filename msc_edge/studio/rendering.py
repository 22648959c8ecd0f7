"""Pages from templates, and the files that pages load."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from msc_edge import __version__
from msc_edge.calibration import Verdict
from msc_edge.describe import describe_least_p_value, disagree, is_least_p_value
from msc_edge.errors import SourceError
from msc_edge.progress import clock
from msc_edge.runtime.tools.evaluate.labelled import GOOD
from msc_edge.runtime.tools.evaluate.metrics import METRICS
from msc_edge.runtime.tools.report.legend import heatmap_scale_url
from msc_edge.runtime.tools.report.outcome import Outcome, Truth, outcome_of
from msc_edge.studio.agreement import explain_disagreement
from msc_edge.studio.training_settings import DETAILS, created
from msc_edge.studio.wording import in_words_of_page
from msc_edge.templates import template_environment

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_REPORT = "msc_edge.runtime.tools.report"
_STATIC: Mapping[str, tuple[str, str]] = {
    "base.css": (_REPORT, "text/css"),  # the reports have the same look
    "studio.css": ("msc_edge.studio", "text/css"),
    "studio.js": ("msc_edge.studio", "text/javascript"),
    "draw.js": ("msc_edge.studio", "text/javascript"),
    "icon.svg": ("msc_edge.studio", "image/svg+xml"),
}


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a part of one. Texts are escaped, and control characters become escapes."""
    text = _environment.get_template(template).render(version=__version__, status=status, **values)
    return HTMLResponse(text, status, HEADERS)


def see(*path: str | int) -> Response:
    """The response to a form: go to a page. `path`: its parts."""
    return RedirectResponse(address(*path), status_code=303)


def address(*path: str | int) -> str:
    """The path of a page on this server."""
    return "/" + "/".join(quote(str(part), safe="") for part in path)


def static(request: Request) -> Response:
    """A style sheet, a script or the icon."""
    package, kind = _STATIC.get(name := request.path_params["name"], ("", ""))
    if not package:
        raise SourceError(f"there is no file {name}")
    folder = files(package) / "static" if package == "msc_edge.studio" else files(package)
    return Response((folder / name).read_bytes(), media_type=kind, headers=HEADERS | {"Cache-Control": "no-cache"})


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}"


def _outcome_of(verdict: Verdict, label: str) -> Outcome:
    """Whether a verdict on a labelled image is right: by the rule of the reports of evaluations."""
    return outcome_of(verdict, Truth(label, is_anomalous=label != GOOD))


# With the tables and the legend of the reports.
_environment = template_environment("msc_edge.studio", "pages", shared=[_REPORT])
_environment.filters |= {"clock": clock, "number": _number, "on_page": in_words_of_page}
_environment.globals |= {
    "DETAILS": DETAILS,
    "address": address,
    "created": created,
    "describe_least_p_value": describe_least_p_value,
    "disagree": disagree,
    "explain_disagreement": explain_disagreement,
    "heatmap_scale": heatmap_scale_url(),
    "is_least_p_value": is_least_p_value,
    "metrics": METRICS,
    "outcome_of": _outcome_of,
}
