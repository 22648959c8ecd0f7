"""`curves.svg` of a run: loss, collapse measure and checkpoint selection over the steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msc_edge.axes import HEIGHT, INK, LEFT, LETTER, TOP, Axes, svg_file, text
from msc_edge.files import written_whole
from msc_edge.train.checkpoint_selection import BestCheckpoint
from msc_edge.train.metrics import StepMetrics
from msc_edge.train.synthetic import KINDS

_BLUE, _RED = "#1f77b4", "#c62828"
_KIND_COLOURS = ("#2e7d32", "#b26a00", "#6a1b9a")
_LEGEND_LINE = 16


@dataclass(frozen=True)
class _Line:
    name: str
    points: Sequence[tuple[int, float]]
    """(step, value), by step."""
    colour: str
    width: float = 2.0
    marked: bool = False
    """Whether each point has a mark."""


def write_curves(path: Path, rows: Sequence[StepMetrics], best: BestCheckpoint | None) -> None:
    """Draw the metrics of a training; `best` is None without checkpoint selection. OutputError from the disk."""
    with written_whole(path, durable=False) as partial:
        partial.write_text(curves_svg(rows, best), encoding="utf-8")


def curves_svg(rows: Sequence[StepMetrics], best: BestCheckpoint | None) -> str:
    """The plots as one SVG file, one below the other, with the same steps."""
    steps = max((row.step for row in rows), default=1)
    selected = best.step if best else None
    plots = [
        ("loss", [_Line("loss of the batch", _values(rows, "loss"), _BLUE)]),
        (
            "mean pairwise cosine",
            [
                _Line(
                    "collapse: near 1 all images have the same embedding",
                    _values(rows, "mean_pairwise_cosine"),
                    _RED,
                )
            ],
        ),
    ]
    if best:
        kinds = [
            _Line(kind, [(each.step, getattr(each, kind)) for each in best.candidates], colour, width=1.2)
            for kind, colour in zip(KINDS, _KIND_COLOURS, strict=True)
        ]
        mean = _Line("mean", [(each.step, each.auroc) for each in best.candidates], _BLUE, marked=True)
        plots.append(("AUROC, synthetic anomalies", [*kinds, mean]))
    parts = [
        f'<g transform="translate(0 {number * HEIGHT})">{_plot(label, lines, steps, selected)}</g>'
        for number, (label, lines) in enumerate(plots)
    ]
    return svg_file("".join(parts), "Curves of the training", height=HEIGHT * len(plots))


def _values(rows: Sequence[StepMetrics], name: str) -> list[tuple[int, float]]:
    """(step, value) of the steps that have the value."""
    return [(row.step, value) for row in rows if (value := getattr(row, name)) is not None]


def _plot(label: str, lines: Sequence[_Line], steps: int, selected: int | None) -> str:
    axes = Axes((0, steps), _range([value for line in lines for _, value in line.points]))
    parts = [axes.frame("step", label, percent=(False, False))]
    if selected is not None:
        parts.append(_selected_mark(axes, selected))
    x = float(LEFT)
    for line in lines:
        points = " ".join(f"{axes.x(step):.1f},{axes.y(value):.1f}" for step, value in line.points)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="{line.width}"'
            ' stroke-linejoin="round"/>'
        )
        for step, value in line.points if line.marked or len(line.points) == 1 else ():
            radius = 5 if step == selected else 2.5
            parts.append(
                f'<circle cx="{axes.x(step):.1f}" cy="{axes.y(value):.1f}" r="{radius}" fill="{line.colour}"/>'
            )
        parts.append(f'<rect x="{x:.1f}" y="8" width="11" height="11" fill="{line.colour}"/>')
        parts.append(text(x + _LEGEND_LINE, 18, line.name, fill=INK))
        x += 2 * _LEGEND_LINE + LETTER * len(line.name)
    return "".join(parts)


def _selected_mark(axes: Axes, step: int) -> str:
    """A line at the selected step, with its name on the side that has more space."""
    x, top, bottom = axes.x(step), TOP - 18, axes.bottom
    name = f"selected: step {step}" if step else "selected: step 0, the frozen backbone"
    right = x < axes.middle
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom:.1f}" stroke="{INK}" stroke-dasharray="5 3"/>'
        + text(x + (6 if right else -6), top + 10, name, fill=INK, anchor="start" if right else "end")
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis, with a margin; of values that are all equal, too."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin
