"""Figures: those of docs/, as their scripts draw them, and the drawing of the states of a camera."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import pytest

from msc_edge.figures import FigureAxes, Line, figure, line_plot

ROOT = Path(__file__).resolve().parents[2]
FIGURES = sorted((ROOT / "docs").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
CURVES = ROOT / "benchmarks" / "figures" / "collapse"


def schemes(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the light and of the dark scheme, by name."""
    light = dict(re.findall(r"var\(--([\w-]+), (#\w+)\)", text))
    head, _, dark = text.partition("prefers-color-scheme")
    light |= dict(re.findall(r"--([\w-]+): ?(#\w+);", head))
    return light, dict(re.findall(r"--([\w-]+): ?(#\w+);", dark))


@pytest.mark.parametrize("file", FIGURES, ids=lambda file: file.stem)
class TestFigures:
    def test_it_says_what_is_seen(self, file):
        root = ElementTree.parse(file).getroot()
        assert root.get("role") == "img"
        assert len(root.findtext(f"{SVG}title") or "") > 20
        assert len(root.findtext(f"{SVG}desc") or "") > 100

    def test_every_colour_has_a_light_and_a_dark_one_with_enough_contrast(self, file, contrast):
        """Success criteria 1.4.3 (text, 4.5) and 1.4.11 (graphics, 3); lines of a grid are decoration."""
        text = file.read_text(encoding="utf-8")
        light, dark = schemes(text)
        used = set(re.findall(r"var\(--([\w-]+)", text))
        assert used <= light.keys() & dark.keys()
        assert not re.search(r'(?:fill|stroke)="(?!none|var)[^"]', text)
        for scheme in (light, dark):
            for name in used - {"panel", "line"}:
                least = 3 if name.startswith("series") else 4.5
                assert contrast(scheme[name], scheme["panel"]) >= least, name

    def test_lines_and_states_differ_without_their_colours(self, file):
        styles = {}
        for element in ElementTree.parse(file).getroot().iter():
            if element.tag in (f"{SVG}polyline", f"{SVG}rect") and (stroke := element.get("stroke")):
                styles.setdefault(stroke, set()).add(element.get("stroke-dasharray", "none"))
        assert all(len(dashes) == 1 for dashes in styles.values())
        colours = [name for name in styles if "quiet" not in name and "good" not in name]
        assert len({min(styles[name]) for name in colours}) == len(colours)


def points_of(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.get("points", "").split())]
        for line in root.iter(f"{SVG}polyline")
    ]


def test_equal_factors_are_equal_distances_on_axes_with_logarithms():
    axes = FigureAxes((1, 10_000), (0.01, 100), log=True)
    line = Line("<name>", [(1, 0.01), (10, 0.1), (100, 1), (10_000, 100)], 0)
    plot = line_plot(axes, [line], below="x", beside="y")
    (points,) = points_of(ElementTree.fromstring(figure([plot], title="A title", description="What is seen.")))
    (x0, y0), (x1, y1), (x2, y2), (x4, y4) = points
    assert (x2 - x1, x4 - x2) == pytest.approx((x1 - x0, 2 * (x1 - x0)), abs=0.2)
    assert (y2 - y1, y4 - y2) == pytest.approx((y1 - y0, 2 * (y1 - y0)), abs=0.2)
    assert [label for _, label in axes.ticks_across(percent=False)] == ["1", "10", "100", "1,000", "10,000"]
    assert [label for _, label in axes.ticks_up(percent=False)] == ["0.01", "0.1", "1", "10", "100"]


def test_the_legend_shows_a_line_as_it_is_drawn():
    """Marks in the legend where the line has marks; without them, neither has any."""
    lines = {marked: Line("a", [(0, 0), (1, 1), (2, 0)], 1, marked=marked) for marked in (True, False)}
    axes = FigureAxes((0, 2), (0, 1))
    plots = {marked: line_plot(axes, [line], below="x", beside="y") for marked, line in lines.items()}
    filled = {marked: plot.count('fill="var(--series') for marked, plot in plots.items()}
    assert filled == {True: 4, False: 0}


def test_the_dark_scheme_is_that_of_reports():
    css = (files("msc_edge.runtime.tools.report") / "base.css").read_text(encoding="utf-8")
    (dark,) = re.findall(r"@media screen and \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", css, re.DOTALL)
    of_reports = dict(re.findall(r"--([\w-]+): (#\w+);", dark))
    _, own = schemes(figure([""], title="A title", description="What is seen."))
    assert {name: own[name] for name in ("ink", "quiet", "line", "panel")}.items() <= of_reports.items()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("costs", ["cost_curves.py", "draw", ROOT / "benchmarks" / "figures" / "costs.json"]),
        (
            "collapse",
            [
                "curves.py",
                f"mean-shifted, v2, 3e-4={CURVES}:v2",
                f"plain contrastive, 3e-4={CURVES}:contrastive",
                f"plain contrastive, 1e-4={CURVES}:contrastive-1e-4",
                "--title",
                "AUROC over the steps of fine-tuning: CIFAR-10 airplane, cat and horse against the rest, MobileNetV2",
            ],
        ),
    ],
)
def test_the_figure_in_docs_is_the_one_of_its_script_and_data(name, arguments, tmp_path):
    script, *rest = arguments
    out = tmp_path / "figure.svg"
    subprocess.run([sys.executable, ROOT / "benchmarks" / script, *rest, "--out", out], check=True, capture_output=True)
    assert out.read_text(encoding="utf-8") == (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8")


def test_no_text_leaves_its_figure(tmp_path):
    """As a real browser measures it, with its own letters."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium, which is not installed")
    script = """
        const outside = [];
        for (const svg of document.querySelectorAll("svg")) {
            const frame = svg.getBoundingClientRect();
            for (const each of svg.querySelectorAll("text, polyline, rect")) {
                const box = each.getBoundingClientRect();
                if (box.left < frame.left - 1 || box.right > frame.right + 1) outside.push(each.outerHTML);
                if (box.top < frame.top - 1 || box.bottom > frame.bottom + 1) outside.push(each.outerHTML);
            }
        }
        document.body.innerHTML = "<pre></pre>";
        document.querySelector("pre").textContent = JSON.stringify(outside);
    """
    drawn = "".join(f'<div style="width: 900px">{file.read_text(encoding="utf-8")}</div>' for file in FIGURES)
    page = tmp_path / "figures.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{drawn}<script>{script}</script>", encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}")
    done = subprocess.run([chromium, *options, page.as_uri()], capture_output=True, check=True, timeout=120)
    found = re.search("<pre>(.*?)</pre>", done.stdout.decode(), re.DOTALL)
    assert found
    assert json.loads(found[1]) == []
