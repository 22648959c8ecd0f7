"""Both pages as a person opens them: in a real browser, without network."""

import re
import shutil
from pathlib import Path

import pytest

from msc_edge.errors import KitError
from msc_edge.kit.opening import Kit
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.tools.report.scores import ScoreReport

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def addresses(page: str) -> set[str]:
    """The beginning of everything that a browser would load."""
    found = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?([^"'>\s]*)|url\(([^)]*)\)""", page)
    return {(first or second)[:5] for first, second in found} - {""}


@pytest.fixture(params=["evaluation", "scores"])
def page(request: pytest.FixtureRequest, evaluated: Path, score_report: Path) -> Path:
    return evaluated / "report.html" if request.param == "evaluation" else score_report / "s.html"


def test_it_opens_without_network_and_errors_and_names_are_not_markup(page, browse, text_of):
    opened = browse(page)
    assert opened.console == []
    text = text_of(page.read_text(encoding="utf-8"))
    assert text_of(opened.dom) == text
    assert "<script>alert(1)</script>.png" in text
    for markup in (page.read_text(encoding="utf-8"), opened.dom):
        assert "<script" not in markup.lower()


def test_everything_is_in_the_file(page):
    text = page.read_text(encoding="utf-8")
    assert addresses(text) == {"data:"}
    assert "http:" not in text
    assert "https:" not in text
    assert f'<meta http-equiv="Content-Security-Policy" content="{CSP}">' in text


def test_the_browser_runs_no_script_and_loads_nothing(score_report, browse, tmp_path):
    """And the browser's error messages are seen by these tests."""
    page = tmp_path / "with script.html"
    added = "<script>document.title = 'run'</script><img src='http://example.org/a.png'></body>"
    text = (score_report / "s.html").read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", added), encoding="utf-8")
    opened = browse(page)
    assert "<title>run" not in opened.dom
    assert len([line for line in opened.console if "Content Security Policy" in line]) == 2


def test_the_kit_is_identified_by_name_and_sha(page, toy_kit, text_of):
    text = text_of(page.read_text(encoding="utf-8"))
    assert f"kit SHA-256 {(toy_kit / 'manifest.sha256').read_text()[:12]}" in text
    assert "toy_pixels, model fp32 · 12 normal images in the memory bank" in text
    assert "another model" not in text


def test_a_page_that_cannot_be_completed_is_not_written(toy_kit, detector, photos, tmp_path):
    """The thumbnails of the kit disappear, as on a memory stick that is removed."""
    copy = shutil.copytree(toy_kit, tmp_path / "copy.kit")
    report = ScoreReport(gallery=5)
    for image in score_images(detector, sorted(photos.glob("*.png")), threads=1):
        report.add(image)
    with Kit.open(copy) as opened:
        shutil.rmtree(copy)
        with pytest.raises(KitError, match="cannot be read any more"):
            report.write(tmp_path / "r.html", detector, opened)
    assert list(tmp_path.iterdir()) == []
