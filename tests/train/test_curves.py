import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from msc_edge.axes import HEIGHT, Axes
from msc_edge.train.checkpoint_selection import BestCheckpoint, Candidate
from msc_edge.train.curves import curves_svg, write_curves
from msc_edge.train.metrics import StepMetrics

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [StepMetrics(step, 3 - step / 10, 0.5 + 0.01 * math.sin(step), 20.0) for step in range(1, 41)]


def selection(*aurocs: tuple[int, float, bool]) -> BestCheckpoint:
    """Candidates (step, AUROC, selected), as a resumed training has them."""
    best = BestCheckpoint(nn.Identity())
    candidates = [
        Candidate(
            step=step, drawn=auroc - 0.1, pasted=auroc, shuffled=auroc + 0.05, auroc=auroc, error=0.01, selected=won
        )
        for step, auroc, won in aurocs
    ]
    state = {"weights": {}, "wins": torch.empty(0), "candidates": [each.model_dump() for each in candidates]}
    best.load_state_dict(state)
    return best


BEST = selection((0, 0.8, True), (20, 0.86, True), (40, 0.85, False))


def points(line: ElementTree.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]  # pyright: ignore[reportReturnType]


def test_the_three_plots_share_the_steps_and_mark_the_selected_one() -> None:
    root = ElementTree.fromstring(curves_svg(ROWS, BEST))
    plots = root.findall(f"{SVG}g")
    places = [re.findall(r"[\d.]+", plot.attrib["transform"]) for plot in plots]
    assert len({across for across, _ in places}) == 1
    down = [float(place) for _, place in places]
    assert all(after - before >= HEIGHT for before, after in itertools.pairwise(down))
    assert float(root.attrib["viewBox"].split()[3]) >= down[-1] + HEIGHT
    assert [len(plot.findall(f"{SVG}polyline")) for plot in plots] == [1, 1, 4]
    axes = Axes((0, 40), (0, 1))
    for plot in plots:
        (mark,) = [line for line in plot.findall(f"{SVG}line") if "stroke-dasharray" in line.attrib]
        assert float(mark.attrib["x1"]) == pytest.approx(axes.x(20), abs=0.06)
        assert "selected: step 20" in [text.text for text in plot.findall(f"{SVG}text")]
        for line in plot.findall(f"{SVG}polyline"):
            assert all(0 < y < HEIGHT for _, y in points(line))


def test_the_documentation_has_the_names_of_the_plots_and_lines() -> None:
    """Each name of the legend, in the row of its plot."""
    rows = (Path(__file__).parents[2] / "docs" / "train.md").read_text("utf-8").splitlines()
    plots = ElementTree.fromstring(curves_svg(ROWS, BEST)).findall(f"{SVG}g")
    for plot, title in zip(plots, ("loss", "mean pairwise cosine", "AUROC, synthetic anomalies"), strict=True):
        assert title in [text.text for text in plot.iter(f"{SVG}text")]
        (row,) = [row for row in rows if re.match(rf"\| {title}[ ;]", row)]
        named = [name.text for name in plot.findall(f"{SVG}polyline/{SVG}title")]
        assert re.findall(r'"([^"]+)"', row) == named


def test_a_line_is_linear_in_step_and_value() -> None:
    """The loss falls by the same amount in each step."""
    plot = ElementTree.fromstring(curves_svg(ROWS, None)).findall(f"{SVG}g")[0]
    (line,) = plot.findall(f"{SVG}polyline")
    found = points(line)
    assert len(found) == len(ROWS)
    across = {round(right[0] - left[0], 0) for left, right in itertools.pairwise(found)}
    down = [right[1] - left[1] for left, right in itertools.pairwise(found)]
    assert len(across) == 1
    assert down == pytest.approx([down[0]] * len(down), abs=0.11)
    assert down[0] > 0  # SVG counts downwards


def test_without_checkpoint_selection_there_is_no_third_plot() -> None:
    drawn = curves_svg(ROWS, None)
    assert len(ElementTree.fromstring(drawn).findall(f"{SVG}g")) == 2
    assert "selected" not in drawn


def test_the_frozen_backbone_is_named_when_it_stays_the_best() -> None:
    assert "selected: step 0, the frozen backbone" in curves_svg(ROWS, selection((0, 0.9, True), (40, 0.8, False)))


@pytest.mark.parametrize("rows", [ROWS[:1], [StepMetrics(step, 0.0, 1.0, 1.0) for step in (1, 2, 3)]])
def test_one_step_and_constant_values_are_drawn(rows: list[StepMetrics]) -> None:
    drawn = curves_svg(rows, selection((0, 1.0, True), (rows[-1].step, 1.0, False)))
    assert "nan" not in drawn
    ElementTree.fromstring(drawn)


def test_the_same_metrics_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one.svg", "other.svg"):
        write_curves(tmp_path / name, ROWS, BEST)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
