"""From figures and pictures to one HTML file, which needs nothing beside itself."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from msc_edge.files import written_whole
from msc_edge.runtime.report.gallery import Card

Gallery = tuple[str, str, Sequence[Card]]
"""A title, a sentence, and pictures."""


def write_page(path: Path, template: str, *, galleries: Sequence[Gallery], **values: object) -> None:
    """Fill a template of this folder and write it. Texts are escaped; Markup is taken as it is."""
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(template).render(css=Markup(_source("base.css")), galleries=galleries, **values)
    with written_whole(path) as partial:
        partial.write_text(page, encoding="utf-8")


def drawn(svg: str) -> Markup:
    """A plot, for a template."""
    return Markup(svg)


def _source(name: str) -> str:
    return (files("msc_edge.runtime.report") / name).read_text(encoding="utf-8")


NAMES: Mapping[str, str] = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "tpr_at_1_fpr": "defects caught when at most 1 % of good parts are flagged",
    "tpr_at_5_fpr": "defects caught when at most 5 % of good parts are flagged",
    "best_f1": "best F1 (of a threshold chosen with these very pictures)",
}
