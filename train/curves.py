"""`curves.svg` of a run: loss, collapse measure and checkpoint selection over the steps."""

from collections.abc import Sequence
from pathlib import Path

from msc_edge.axes import INK, TOP, Axes, text
from msc_edge.figures import Line, figure, line_plot
from msc_edge.files import written_whole
from msc_edge.synthetic import KINDS
from msc_edge.train.checkpoint_selection import BestCheckpoint
from msc_edge.train.metrics import StepMetrics


def write_curves(path: Path, rows: Sequence[StepMetrics], best: BestCheckpoint | None) -> None:
    """Draw the metrics of a training; `best` is None without checkpoint selection. OutputError from the disk."""
    with written_whole(path, durable=False) as partial:
        partial.write_text(curves_svg(rows, best), encoding="utf-8")


def curves_svg(rows: Sequence[StepMetrics], best: BestCheckpoint | None) -> str:
    """The plots as one SVG file, one below the other, with the same steps."""
    steps = max((row.step for row in rows), default=1)
    selected = best.step if best else None
    collapse = _values(rows, "mean_pairwise_cosine")
    plots = [
        ("loss", [Line("loss", _values(rows, "loss"), 0, marked=False)]),
        ("mean pairwise cosine", [Line("mean pairwise cosine (near 1: collapse)", collapse, 1, marked=False)]),
    ]
    if best:
        mean = Line("mean of the three kinds", [(each.step, each.auroc) for each in best.candidates], 0)
        kinds = [
            Line(kind, [(each.step, getattr(each, kind)) for each in best.candidates], number)
            for number, kind in enumerate(KINDS, start=2)
        ]
        plots.append(("AUROC, synthetic anomalies", [mean, *kinds]))
    description = ". ".join(f"{label}: {_described(lines[0].points)}" for label, lines in plots)
    return figure(
        [_plot(label, lines, steps, selected) for label, lines in plots],
        title="Curves of the training",
        description=f"{description}." + (f" Step {selected} is selected." if best else ""),
        columns=1,
    )


def _values(rows: Sequence[StepMetrics], name: str) -> list[tuple[float, float]]:
    """(step, value) of the steps that have the value."""
    return [(row.step, value) for row in rows if (value := getattr(row, name)) is not None]


def _described(points: Sequence[tuple[float, float]]) -> str:
    return f"{points[0][1]:.3g} at the start, {points[-1][1]:.3g} at the end"


def _plot(label: str, lines: Sequence[Line], steps: int, selected: int | None) -> str:
    axes = Axes((0, steps), _range([value for line in lines for _, value in line.points]))
    drawn = line_plot(axes, lines, below="step", beside=label)
    return drawn if selected is None else drawn + _selected_mark(axes, selected)


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
