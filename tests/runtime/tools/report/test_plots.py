import json
import math
import re
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.axes import HEIGHT, WIDTH, Axes
from msc_edge.calibration import Limit, Limits
from msc_edge.runtime.tools.report.plots import DEFECT, NORMAL, Scores, found_at, histogram, roc


def limits(warn: float, reject: float) -> Limits:
    return Limits(warn=Limit(warn, None, None), reject=Limit(reject, None, None))


def two(normal: list[float], anomalous: list[float]) -> list[Scores]:
    return [
        Scores("normal images", np.array(normal), NORMAL),
        Scores("anomalous images", np.array(anomalous), DEFECT, hatched=True),
    ]


SOME = np.random.default_rng(0)
HISTOGRAMS = {
    "usual": histogram(two(SOME.gamma(3, 0.01, 500).tolist(), SOME.gamma(4, 0.03, 90).tolist()), limits(0.06, 0.08)),
    "all equal": histogram(two([0.25], [0.25]), limits(0.25, 0.25)),
    "limits at the left end": histogram(two([0.5, 0.6], [0.7]), limits(-0.00001, 0.0)),
    "limits at the right end": histogram(two([0.1, 0.2], [0.3]), limits(1.234567, 2.0)),
    "limits close together": histogram(two([0.1, 0.2], [2.0]), limits(1.9998, 1.9999)),
    "a reject limit below warn": histogram(two([0.1, 0.2], [0.3]), limits(0.2, 0.2)),
    "tiny scores": histogram(two([1e-7, 2e-7], [2e-6]), limits(3e-7, 4e-7)),
    "one outlier of many": histogram(two([0.01] * 100_000, [0.01, 2.0]), limits(0.02, 0.03)),
}
ROCS = {
    "usual": roc([0, 0, 0.1, 1], [0, 0.6, 0.9, 1], marks={"warn": (0.05, 0.75), "reject": (0, 0.6)}),
    "perfect": roc([0, 0, 1], [0, 1, 1], marks={"warn": (0, 1), "reject": (0, 1)}),
    "reversed": roc([0, 1, 1], [0, 0, 1], marks={"warn": (1, 0), "reject": (1, 1)}),
    "up to 10 %": roc(
        [0, 0, 0.05, 0.3, 1], [0, 0.5, 0.7, 0.9, 1], marks={"warn": (0.3, 0.9), "reject": (0.05, 0.7)}, up_to=0.1
    ),
    "up to 10 %, without a point in it": roc([0, 1], [0, 1], marks={"warn": (1, 1), "reject": (1, 1)}, up_to=0.1),
}
PLOTS = HISTOGRAMS | {f"ROC, {name}": plot for name, plot in ROCS.items()}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_well_formed_and_its_numbers_are_finite(name):
    root = ElementTree.fromstring(PLOTS[name])
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == f"{root.findtext('title')}. {root.findtext('desc')}"
    assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    for element in root.iter():
        assert not {"nan", "inf"} & {word for value in element.attrib.values() for word in re.split(r"[ ,()-]", value)}
        for size in ("width", "height", "r"):
            assert float(element.get(size, "1")) > 0
    assert "-0<" not in PLOTS[name]


def test_nothing_is_drawn_outside_of_the_plot(browse, tmp_path: Path):
    """As the browser measures it, with its own letters."""
    measure = """
        const outside = {};
        for (const svg of document.querySelectorAll("svg")) {
            const frame = svg.getBoundingClientRect();
            for (const each of svg.querySelectorAll("rect, line, polyline, circle, text")) {
                const box = each.getBoundingClientRect();
                const beyond = Math.max(frame.left - box.left, box.right - frame.right,
                                        frame.top - box.top, box.bottom - frame.bottom);
                if (beyond > 0.5) (outside[svg.parentElement.id] ||= []).push(each.outerHTML.slice(0, 200));
            }
        }
        document.body.innerHTML = "<pre></pre>";
        document.querySelector("pre").textContent = JSON.stringify(outside);
    """
    drawn = "".join(f'<div id="{name}" style="width: 480px">{plot}</div>' for name, plot in PLOTS.items())
    page = tmp_path / "plots.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{drawn}<script>{measure}</script>", encoding="utf-8")
    opened = browse(page)
    found = re.search(r"<pre>(.*)</pre>", opened.dom, re.DOTALL)
    assert found, opened.console
    assert json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")) == {}


@pytest.mark.parametrize("name", PLOTS)
def test_colours_are_those_of_the_page_in_its_light_or_dark_scheme(name):
    """Outside of a page a plot has the light ones."""
    css = (files("msc_edge.runtime.tools.report") / "base.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]+);", css.partition("@media")[0]))
    for element in ElementTree.fromstring(PLOTS[name]).iter():
        for colour in (element.get("fill", "none"), element.get("stroke", "none")):
            if colour in ("none", "url(#hatch)"):
                continue
            found = re.fullmatch(r"var\((--[a-z-]+), (#[0-9a-f]+)\)", colour)
            assert found, colour
            assert found[2] == light[found[1]]


class TestHistogram:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.lists(st.floats(0, 2), min_size=1, max_size=60))
    def test_the_bars_of_each_group_sum_to_100_per_cent(self, normal, anomalous):
        root = ElementTree.fromstring(histogram(two(normal, anomalous), limits(0.1, 0.2)))
        for colour in (NORMAL, DEFECT):
            titles = [bar.findtext("title") for bar in root.iter("rect") if bar.get("stroke") == colour]
            shares = [float(share) for title in titles for share in re.findall(r": ([\d.]+)%", title or "")]
            assert sum(shares) == pytest.approx(100, abs=0.005 * len(shares) + 1e-9)

    def test_a_limit_is_drawn_at_its_score(self):
        root = ElementTree.fromstring(histogram(two([0.0, 0.1], [1.0]), limits(0.25, 0.5)))
        warn, reject = (float(line.get("x1", "")) for line in root.iter("line") if line.get("stroke-dasharray"))
        axes = Axes((0, 1), (0, 1))
        assert (warn, reject) == pytest.approx((axes.x(0.25), axes.x(0.5)), abs=0.1)
        assert "warn above 0.25" in "".join(root.itertext())

    def test_a_warn_limit_that_is_not_used_is_not_drawn(self):
        root = ElementTree.fromstring(HISTOGRAMS["a reject limit below warn"])
        assert "warn" not in "".join(root.itertext())

    def test_one_image_of_a_hundred_thousand_is_visible(self):
        many = Scores("images", np.array([0.01] * 100_000 + [1.0]), NORMAL)
        root = ElementTree.fromstring(histogram([many], limits(0.02, 0.03)))
        bars = [bar for bar in root.iter("rect") if bar.find("title") is not None]
        assert len(bars) == 2
        assert min(float(bar.get("height", "")) for bar in bars) >= 1

    def test_groups_and_limits_differ_without_their_colours(self):
        root = ElementTree.fromstring(HISTOGRAMS["usual"])
        bars = {bar.get("fill") for bar in root.iter("rect") if bar.find("title") is not None}
        assert bars == {NORMAL, "url(#hatch)"}
        assert len({line.get("stroke-dasharray") for line in root.iter("line")} - {None}) == 2

    def test_the_description_says_what_is_seen(self):
        root = ElementTree.fromstring(histogram(two([0.1, 0.2, 0.35], [0.3, 0.9]), limits(0.25, 0.33)))
        assert root.findtext("desc") == (
            "normal images: 3, scores 0.1 to 0.35, 1 above the reject limit. "
            "anomalous images: 2, scores 0.3 to 0.9, 1 above the reject limit. "
            "warn limit at 0.25. reject limit at 0.33."
        )


class TestRoc:
    def test_the_curve_has_its_points(self):
        root = ElementTree.fromstring(ROCS["usual"])
        axes = Axes((0, 1), (0, 1))
        (line,) = root.iter("polyline")
        assert f"{axes.x(0.1):.1f},{axes.y(0.9):.1f}" in line.get("points", "").split()

    def test_many_points_make_a_small_plot(self):
        steps = np.linspace(0, 1, 100_000)
        plot = roc(steps, np.sqrt(steps), marks={"warn": (0.1, 0.3), "reject": (0, 0)})
        # The plot is about 400 units wide and has one decimal; a point has 12 characters.
        assert len(plot) < 12 * 10 * (WIDTH + HEIGHT)

    def test_the_limits_have_labels(self):
        text = "".join(ElementTree.fromstring(ROCS["usual"]).itertext())
        assert "warn: 75.0 % found, 5.0 % of normal images flagged" in text
        assert "reject: 60.0 % found, 0.0 % of normal images flagged" in text

    def test_the_description_says_what_is_found_at_small_rates(self):
        root = ElementTree.fromstring(ROCS["up to 10 %"])
        assert root.findtext("title") == "ROC curve, up to 10 %"
        assert (root.findtext("desc") or "").endswith(
            "50.0 % found at 1 %, 70.0 % found at 5 %, 70.0 % found at 10 % of them flagged."
        )

    def test_the_plot_up_to_10_per_cent_ends_on_the_curve(self):
        """Between (0.05, 0.7) and (0.3, 0.9) the curve is at 0.74 where 10 % are flagged."""
        root = ElementTree.fromstring(ROCS["up to 10 %"])
        axes = Axes((0, 0.1), (0, 1))
        (line,) = root.iter("polyline")
        assert line.get("points", "").split()[-2:] == [
            f"{axes.x(0.05):.1f},{axes.y(0.7):.1f}",
            f"{axes.x(0.1):.1f},{axes.y(0.74):.1f}",
        ]

    def test_a_limit_beyond_the_plot_is_in_the_legend_only(self):
        root = ElementTree.fromstring(ROCS["up to 10 %"])
        marks = [mark.get("fill") for mark in root.iter("path")]
        assert [sum(name in (fill or "") for fill in marks) for name in ("warn", "bad")] == [1, 2]

    def test_the_marks_of_the_limits_have_different_shapes(self):
        root = ElementTree.fromstring(ROCS["usual"])
        shapes = {(mark.get("fill"), re.sub("[^a-zA-Z]", "", mark.get("d", ""))) for mark in root.iter("path")}
        assert len(shapes) == len({shape for _, shape in shapes}) == 2

    @given(st.lists(st.floats(0, 1), min_size=1), st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1))
    def test_found_at_is_the_best_limit_of_all(self, normal, anomalous, rate):
        limits = [math.inf, *normal, *anomalous, -1.0]
        points = sorted({(np.mean(np.array(normal) > limit), np.mean(np.array(anomalous) > limit)) for limit in limits})
        false, true = np.array(points).T
        best = max(found for flagged, found in points if flagged <= rate + 1e-12)
        assert found_at(false, true, rate) == best
