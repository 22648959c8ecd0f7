"""From figures and images to one HTML file, which needs nothing beside itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from msc_edge import __version__
from msc_edge.files import written_whole
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.runtime.tools.report.gallery import Card
from msc_edge.runtime.tools.report.report_path import MARK
from msc_edge.text import many, one_line, percent


@dataclass(frozen=True)
class Gallery:
    """Images under one heading."""

    title: str
    words: str
    of: int
    """How many images there are, of which the cards are the first."""
    cards: Sequence[Card]


def write_page(
    path: Path, template: str, *, kit: Kit, precision: Precision, galleries: Sequence[Gallery], **values: object
) -> None:
    """Fill a template of this folder and write it, whole or not at all. OutputError from the disk.

    Texts are escaped, and what would not show in a line of a terminal does not in the page; Markup is taken as it is.
    """
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "many": many}
    page = environment.get_template(template).render(
        css=Markup(_source("base.css")),
        mark=Markup(MARK.decode()),
        kit=Path(kit.name).resolve().name,
        manifest=kit.manifest,
        precision=precision,
        kit_sha256=kit.sha256,
        version=__version__,
        date=date.today().isoformat(),
        galleries=galleries,
        **values,
    )
    with written_whole(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _shown(value: object) -> object:
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(name: str) -> str:
    return (files("msc_edge.runtime.tools.report") / name).read_text(encoding="utf-8")
