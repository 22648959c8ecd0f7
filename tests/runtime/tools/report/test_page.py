"""Both pages as a person opens them: in a real browser, without network."""

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from msc_edge.errors import KitError
from msc_edge.kit.opening import Kit
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.tools.report.scores import ScoreReport

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def addresses(page: str) -> set[str]:
    """The beginning of everything that a browser would load: all but places in the page itself."""
    found = re.findall(r"""(?:src|href|action|\bdata)\s*=\s*["']?([^"'>\s]*)|url\(([^)]*)\)""", page)
    return {(first or second)[:5] for first, second in found if not (first or second).startswith("#")} - {""}


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


@pytest.fixture(scope="module")
def measured() -> Iterator[Callable[..., Any]]:
    """What a script finds in a page that is shown in a window of some width: the page itself runs none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium, which is not installed")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def measure(page: Path, script: str, *, width: int) -> Any:
            shown = browser.new_page(viewport={"width": width, "height": 900})
            shown.goto(page.as_uri())
            # What depends on scrolling is known after a frame has been drawn.
            shown.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            found = shown.evaluate(f"() => {{ {script} }}")
            shown.close()
            return found

        yield measure
        browser.close()


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("name", ["evaluation", "maps", "scores"])
def test_nothing_is_wider_than_the_window(name, width, request, measured):
    folder = request.getfixturevalue(
        {"evaluation": "evaluated", "maps": "evaluated_maps", "scores": "score_report"}[name]
    )
    script = """
        window.scrollTo(50, 0);
        const beyond = [...document.querySelectorAll("body *")].filter(
            each => each.getBoundingClientRect().right > window.innerWidth + 0.5 && !each.closest(".scroll, svg"));
        const fits = document.documentElement.scrollWidth <= window.innerWidth && window.scrollX === 0;
        return [fits, beyond.map(each => each.outerHTML.slice(0, 200))];
    """
    page = folder / ("s.html" if name == "scores" else "report.html")
    assert measured(page, script, width=width) == [True, []]


def test_the_outline_of_a_mask_lies_on_its_place_in_the_image(evaluated_maps, measured):
    """The masks are circles around (8.5, 40.5) or (50.5, 12.5), of radius 8.5, in images of 64 x 48 pixels."""
    script = """
        return [...document.querySelectorAll(".own svg")].map(svg => {
            const image = svg.parentElement.querySelector("img").getBoundingClientRect();
            const mask = svg.querySelector(".mask").getBBox();
            const matrix = svg.querySelector(".mask").getScreenCTM();
            const centre = new DOMPoint(mask.x + mask.width / 2, mask.y + mask.height / 2).matrixTransform(matrix);
            const scale = image.width / 64, top = (image.height - 48 * scale) / 2;
            return [(centre.x - image.left) / scale, (centre.y - image.top - top) / scale];
        });
    """
    found = measured(evaluated_maps / "report.html", script, width=1100)
    assert isinstance(found, list)
    assert len(found) == 4
    for centre in found:
        expected = (50.5, 12.5) if centre[0] > 32 else (8.5, 40.5)
        assert centre == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize("width", [360, 1100])
def test_a_table_scrolls_in_its_own_box_and_the_hint_is_seen_where_it_does(width, evaluated_maps, measured):
    script = """
        return [...document.querySelectorAll(".scroll:has(.hint)")].map(box => {
            const before = box.scrollWidth > box.clientWidth;
            box.scrollLeft = 1000;
            return [before, box.scrollLeft > 0, box.querySelector(".hint").offsetHeight > 0, box.tabIndex];
        });
    """
    found = measured(evaluated_maps / "report.html", script, width=width)
    assert len(found) == 5
    assert all(scrolls == moved == hint and tab == 0 for scrolls, moved, hint, tab in found)
    assert sum(scrolls for scrolls, *_ in found) == (0 if width > 1000 else 3)


def test_each_image_is_enlarged_by_its_link_and_comes_back_by_another(evaluated_maps, browse, tmp_path):
    """Links work with a mouse, a finger and a keyboard. A copy of the page without its policy runs the script."""
    script = """
        const size = each => { const box = each.getBoundingClientRect(); return [box.width, box.height]; };
        const found = [...document.querySelectorAll(".zoom")].map(box => {
            const [open, close] = box.querySelectorAll(":scope > a[href]"), image = open.querySelector("img");
            const before = size(image), hidden = close.offsetHeight === 0;
            open.click();
            const large = size(image), whole = size(box), covered = size(close);
            close.click();
            const after = size(image), target = document.querySelector(":target");
            const back = target.matches("article") && target.contains(box);
            return {before, hidden, large, whole, covered, after, back};
        });
        document.body.innerHTML = "<pre></pre>";
        document.querySelector("pre").textContent = JSON.stringify(found);
    """
    text = (evaluated_maps / "report.html").read_text(encoding="utf-8").replace(CSP, "")
    (tmp_path / "copy.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    opened = browse(tmp_path / "copy.html")
    (result,) = re.findall("<pre>(.*?)</pre>", opened.dom, re.DOTALL)
    found = json.loads(html.unescape(result))
    assert len(found) == 3 * 8
    for each in found:
        assert each["whole"] == each["covered"]
        assert each["whole"] == pytest.approx([1160, 1900], rel=0.05)  # less the scroll bar and the bars of the window
        assert each["large"] > each["before"] == each["after"]
        assert each["large"][0] > 700
        assert each["hidden"]
        assert each["back"]


@pytest.mark.parametrize("name", ["evaluation", "maps", "scores"])
def test_each_image_and_plot_has_a_text_and_identifiers_are_unique(name, request):
    folder = request.getfixturevalue(
        {"evaluation": "evaluated", "maps": "evaluated_maps", "scores": "score_report"}[name]
    )
    text = (folder / ("s.html" if name == "scores" else "report.html")).read_text(encoding="utf-8")
    for alt in re.findall("<img [^>]*>", text):
        assert re.search('alt="[^"]{20,}"', alt), alt
    for plot in re.findall("<svg [^>]*>", text):
        assert 'aria-hidden="true"' in plot or 'role="img" aria-label="' in plot
    identifiers = re.findall(r'\bid="([^"]*)"', text)
    assert len(set(identifiers)) == len(identifiers)
    assert set(re.findall('href="#([^"]*)"', text)) <= set(identifiers)


def test_the_title_says_what_is_seen(evaluated, score_report):
    for page, expected in (
        (evaluated / "report.html", "Evaluation of toy: 1 of 9 normal images rejected, 1 of 6 anomalous images missed"),
        (score_report / "s.html", "Images scored with toy: 6 of 16 images rejected"),
    ):
        assert f"<title>{expected}</title>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["evaluation", "maps", "scores"])
def test_the_page_has_no_absolute_path(name, request, tmp_path_factory):
    folder = request.getfixturevalue(
        {"evaluation": "evaluated", "maps": "evaluated_maps", "scores": "score_report"}[name]
    )
    text = (folder / ("s.html" if name == "scores" else "report.html")).read_text(encoding="utf-8")
    assert str(tmp_path_factory.getbasetemp()) not in text


def test_printed_pages_are_white_and_full(score_report, print_page, tmp_path):
    pages = print_page(score_report / "s.html", tmp_path)
    assert 1 < len(pages) <= 3
    for number, page in enumerate(pages, start=1):
        edge = np.concatenate([page[:5].ravel(), page[-5:].ravel(), page[:, :5].ravel(), page[:, -5:].ravel()])
        assert edge.min() == 255
        # Most of a page is paper, also in the plots and the tables.
        assert np.median(page) == 255
        filled = np.flatnonzero((page < 200).any(axis=1)).max() / len(page)
        assert number == len(pages) or filled > 0.6


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
