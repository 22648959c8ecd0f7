"""Both pages as a person opens them: in a real browser, without network."""

import html
import json
import re
import shutil
from importlib.resources import files
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


def test_a_page_with_heatmaps_opens_without_network_and_errors(evaluated_maps, browse):
    page = evaluated_maps / "report.html"
    assert browse(page).console == []
    assert addresses(page.read_text(encoding="utf-8")) == {"data:"}


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


def measured(page: Path, browse, script: str, *, width: int, folder: Path) -> object:
    """What a script finds in a page that is shown in a frame of this width: the page itself runs none."""
    frame = html.escape(page.read_text(encoding="utf-8"))
    program = f"""
        document.querySelector("iframe").onload = event => {{
            const shown = event.target.contentDocument, frame = event.target.contentWindow;
            const found = (() => {{ {script} }})();
            document.body.innerHTML = "<pre></pre>";
            document.querySelector("pre").textContent = JSON.stringify(found);
        }};
    """
    wrapper = folder / "frame.html"
    text = f'<!doctype html><meta charset="utf-8"><iframe width="{width}" height="900" srcdoc="{frame}"></iframe>'
    wrapper.write_text(f"{text}<script>{program}</script>", encoding="utf-8")
    opened = browse(wrapper)
    found = re.search(r"<pre>(.*)</pre>", opened.dom, re.DOTALL)
    assert found, opened.console
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("name", ["evaluation", "maps", "scores"])
def test_nothing_is_wider_than_the_window(name, width, request, browse, tmp_path):
    folder = request.getfixturevalue(
        {"evaluation": "evaluated", "maps": "evaluated_maps", "scores": "score_report"}[name]
    )
    script = """
        const beyond = [...shown.querySelectorAll("body *")].filter(
            each => each.getBoundingClientRect().right > frame.innerWidth + 0.5 && !each.closest(".scroll, svg"));
        const fits = shown.documentElement.scrollWidth <= frame.innerWidth;
        return [fits, beyond.map(each => each.outerHTML.slice(0, 200))];
    """
    page = folder / ("s.html" if name == "scores" else "report.html")
    assert measured(page, browse, script, width=width, folder=tmp_path) == [True, []]


def test_the_outline_of_a_mask_lies_on_its_place_in_the_image(evaluated_maps, browse, tmp_path):
    """The masks are circles around (8.5, 40.5) or (50.5, 12.5), of radius 8.5, in images of 64 x 48 pixels."""
    script = """
        return [...shown.querySelectorAll(".own svg")].map(svg => {
            const image = svg.parentElement.querySelector("img").getBoundingClientRect();
            const mask = svg.querySelector(".mask").getBBox();
            const matrix = svg.querySelector(".mask").getScreenCTM();
            const centre = new DOMPoint(mask.x + mask.width / 2, mask.y + mask.height / 2).matrixTransform(matrix);
            const scale = image.width / 64, top = (image.height - 48 * scale) / 2;
            return [(centre.x - image.left) / scale, (centre.y - image.top - top) / scale];
        });
    """
    found = measured(evaluated_maps / "report.html", browse, script, width=1100, folder=tmp_path)
    assert isinstance(found, list)
    assert len(found) == 4
    for centre in found:
        expected = (50.5, 12.5) if centre[0] > 32 else (8.5, 40.5)
        assert centre == pytest.approx(expected, abs=0.6)


def luminance(colour: str) -> float:
    """The relative luminance of a colour such as #2e7d32 (WCAG 2.2)."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_at_least_4_5_in_both_colour_schemes(scheme):
    """WCAG 2.2, success criterion 1.4.3."""
    css = (files("msc_edge.runtime.tools.report") / "base.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", light))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", dark))
    for text in ("ink", "quiet", "good", "warn", "bad"):
        for background in ("paper", "panel"):
            low, high = sorted((luminance(colours[text]), luminance(colours[background])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, background)


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
