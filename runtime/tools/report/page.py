"""From figures and images to one HTML file that needs nothing else."""

from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from msc_edge import __version__
from msc_edge.files import written_whole
from msc_edge.kit.opening import Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.report.gallery import Gallery
from msc_edge.runtime.tools.report.legend import heatmap_scale_url
from msc_edge.templates import template_environment

_PACKAGE = "msc_edge.runtime.tools.report"


def write_page(
    path: Path, template: str, *, kit: Kit, detector: Detector, galleries: Sequence[Gallery], **values: object
) -> None:
    """Fill a template of this folder and write the page, whole or not at all. OutputError from the disk.

    Texts are escaped, and control characters become escapes; Markup is inserted as it is.
    """
    environment = template_environment(_PACKAGE)
    page = environment.get_template(template).render(
        css=Markup((files(_PACKAGE) / "base.css").read_text(encoding="utf-8")),
        kit=kit.manifest.name,
        manifest=kit.manifest,
        model=detector.model,
        kit_sha256=kit.identity.sha256,
        additions=detector.additions,
        version=__version__,
        date=date.today().isoformat(),
        galleries=galleries,
        heatmap_scale=heatmap_scale_url() if any(gallery.heatmaps for gallery in galleries) else "",
        **values,
    )
    with written_whole(path) as partial:
        partial.write_text(page, encoding="utf-8")
