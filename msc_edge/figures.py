"""Figures in files of their own: plots of lines, with the axes and the colours of reports, light and dark.

A page shows such a file as an image, so the file has a style sheet of its own. Lines differ by colour, dashes and
marks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from msc_edge.axes import HEIGHT, INK, LEFT, LETTER, TOP, WIDTH, Axes, text
from msc_edge.marks import DASHES, SHAPES, mark

_SERIES = (  # light, dark: 3:1 on the background
    ("#1f77b4", "#5aa9e6"),
    ("#c62828", "#f0746c"),
    ("#2e7d32", "#6fbf73"),
    ("#a35f00", "#f0a94a"),
    ("#6a1b9a", "#c08be0"),
)
_DARK = {"ink": "#e6e6e3", "quiet": "#a4a7ab", "line": "#383b3f", "panel": "#1e2022"}
"""Colours of the dark scheme of reports."""
_ROW = 18  # between lines of the legend, in units of a plot
_GAP = 16  # between plots


@dataclass(frozen=True)
class Line:
    """One line of a plot: its points, with ascending x, and the number of its colour, dashes and marks."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    marked: bool = True
    """Whether each point has a mark; a single point always has one."""


class FigureAxes(Axes):
    """Axes with logarithms, or with chosen ticks below the plot."""

    def __init__(
        self,
        across: tuple[float, float],
        up: tuple[float, float],
        *,
        log: bool = False,
        across_ticks: Sequence[float] = (),
    ) -> None:
        """`log`: both axes show logarithms, with a tick at each power of ten. `across_ticks`: else, where ticks are."""
        self._log, self._chosen = log, across_ticks
        if log:
            across, up = ((math.log10(low), math.log10(high)) for low, high in (across, up))
        super().__init__(across, up)

    def x(self, value: float) -> float:
        """See Axes."""
        return super().x(math.log10(value) if self._log else value)

    def y(self, value: float) -> float:
        """See Axes."""
        return super().y(math.log10(value) if self._log else value)

    def ticks_across(self, *, percent: bool) -> list[tuple[float, str]]:
        """See Axes."""
        if self._log:
            return _decades(*self._across)
        return [(each, f"{each:g}") for each in self._chosen] or super().ticks_across(percent=percent)

    def ticks_up(self, *, percent: bool) -> list[tuple[float, str]]:
        """See Axes."""
        return _decades(*self._up) if self._log else super().ticks_up(percent=percent)


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    exponents = range(math.ceil(low - 1e-6), math.floor(high + 1e-6) + 1)
    return [(10.0**each, f"{10**each:,}" if each >= 0 else f"{10.0**each:g}") for each in exponents]


def line_plot(axes: Axes, lines: Sequence[Line], *, below: str, beside: str) -> str:
    """A plot of at most six lines, as content of an SVG of WIDTH x HEIGHT units; the legend has two columns."""
    assert len(lines) <= 2 * (TOP // _ROW), "the legend has no place for more"
    parts = [axes.frame(below, beside, percent=(False, False))]
    for row, line in enumerate(lines):
        colour = f"var(--series-{line.style}, {_SERIES[line.style][0]})"
        shape, dashes = SHAPES[line.style], DASHES[line.style]
        drawn = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        points = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{points}" {drawn}><title>{escape(line.name)}</title></polyline>')
        is_marked = line.marked or len(line.points) == 1
        if is_marked:
            parts += (mark(shape, axes.x(x), axes.y(y), colour=colour, size=4) for x, y in line.points)
        x, y = LEFT + (row % 2) * 27 * LETTER, 14 + _ROW * (row // 2)
        parts.append(f'<path d="M{x:.1f} {y - 4}h28" {drawn}/>')
        if is_marked:
            parts.append(mark(shape, x + 14, y - 4, colour=colour, size=4))
        parts.append(text(x + 34, y, line.name, fill=INK))
    return "".join(parts)


def figure(plots: Sequence[str], *, title: str, description: str, columns: int = 2) -> str:
    """Plots of WIDTH x HEIGHT units as one SVG file, in at most this many columns. The texts say what is seen."""
    columns = min(columns, len(plots))
    rows = -(-len(plots) // columns)
    width, height = columns * (WIDTH + _GAP) + _GAP, rows * (HEIGHT + _GAP) + _GAP
    placed = "".join(
        f'<g transform="translate({_GAP + number % columns * (WIDTH + _GAP)} '
        f'{_GAP + number // columns * (HEIGHT + _GAP)})">{plot}</g>'
        for number, plot in enumerate(plots)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(f"{title}. {description}")}" font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc><style>{_dark_scheme()}</style>"
        f'<rect width="100%" height="100%" fill="var(--panel, #fff)"/>{placed}</svg>\n'
    )


def _dark_scheme() -> str:
    rules = _DARK | {f"series-{number}": colour for number, (_, colour) in enumerate(_SERIES)}
    named = "".join(f"--{name}:{colour};" for name, colour in rules.items())
    return f"@media (prefers-color-scheme:dark){{:root{{{named}}}}}"
