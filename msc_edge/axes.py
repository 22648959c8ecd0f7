"""Plots as SVG: axes from values to positions, round ticks, text."""

import math
from html import escape
from typing import Literal

from markupsafe import Markup

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 26, 62, 42
INK, QUIET = "var(--ink, #222)", "var(--quiet, #666)"
"""Colours of text: those of the page, in its light or dark scheme. A plot outside of a page has the second one."""
_LINE, _BASE = "var(--line, #e4e4e2)", "var(--quiet, #666)"
LETTER = 7.6
"""Upper bound of the mean width of a letter, in units of the plot."""
# Text stays legible on top of a line.
_HALO = 'paint-order="stroke" stroke="var(--panel, #fff)" stroke-width="4" stroke-linejoin="round"'


def ticks(low: float, high: float, *, most: int) -> list[tuple[float, str]]:
    """Round values from low to high, low < high, in at most `most` steps, each with its text."""
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [(number * step, f"{number * step:.{decimals}f}") for number in range(first, last + 1)]


class Axes:
    """Maps values to positions. `across` and `up` are the values at the ends of the two axes."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._across, self._up = across, up

    def x(self, value: float) -> float:
        """Distance from the left edge, in units of the plot."""
        low, high = self._across
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Distance from the upper edge, in units of the plot."""
        low, high = self._up
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    @property
    def bottom(self) -> float:
        """Distance of the lower end from the upper edge, in units of the plot."""
        return HEIGHT - BOTTOM

    @property
    def middle(self) -> float:
        """Distance of the middle from the left edge, in units of the plot."""
        return (LEFT + WIDTH - RIGHT) / 2

    def frame(self, below: str, beside: str, *, percent: tuple[bool, bool]) -> str:
        """Axes, ticks and labels; `percent`: whether the values across and up are shares."""
        parts = []
        for value, label in self.ticks_across(percent=percent[0]):
            x = min(self.x(value), WIDTH - LETTER * len(label) / 2)
            parts.append(text(x, HEIGHT - BOTTOM + 17, label, anchor="middle", fill=QUIET))
        for value, label in self.ticks_up(percent=percent[1]):
            y = self.y(value)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_LINE}"/>')
            parts.append(text(LEFT - 5, y + 4, label, anchor="end", fill=QUIET))
        base = HEIGHT - BOTTOM
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}" stroke="{_BASE}"/>')
        parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, below, anchor="middle", fill=INK))
        parts.append(
            f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
            f'text-anchor="middle" fill="{INK}">{escape(beside)}</text>'
        )
        return "".join(parts)

    def ticks_across(self, *, percent: bool) -> list[tuple[float, str]]:
        """Values of the ticks below the plot, each with its text."""
        return _ticks(self._across, most=5, percent=percent)

    def ticks_up(self, *, percent: bool) -> list[tuple[float, str]]:
        """Values of the ticks beside the plot, each with its text."""
        return _ticks(self._up, most=5, percent=percent)


def _ticks(ends: tuple[float, float], *, most: int, percent: bool) -> list[tuple[float, str]]:
    if not percent:
        return ticks(*ends, most=most)
    return [(value / 100, f"{label} %") for value, label in ticks(100 * ends[0], 100 * ends[1], most=most)]


def text(x: float, y: float, content: str, *, fill: str, anchor: Literal["start", "middle", "end"] = "start") -> str:
    """Text whose baseline starts, has its middle or ends at (x, y)."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" {_HALO}>{escape(content)}</text>'


def svg(content: str, *, title: str, description: str) -> Markup:
    """The plot, for a template. `title` and `description` say what is seen, for those who do not see it."""
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    label = escape(f"{title}. {description}")
    about = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" {font}>{about}{content}</svg>')
