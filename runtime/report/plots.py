"""Plots as SVG, drawn here: a report is one file that opens without network, on any PC, and prints well."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

GOOD, BAD, WARN, REJECT, INK, QUIET = "#2e7d32", "#c62828", "#ef8f00", "#c62828", "#222", "#8a8a8a"
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 34, 42


def histogram(groups: Mapping[str, np.ndarray], *, limits: Mapping[str, float], bins: int = 48) -> str:
    """Scores of named groups (each a share of its own pictures), with the limits as lines. The first group is good."""
    values = np.concatenate([*groups.values(), list(limits.values())])
    low, high = float(values.min()), float(values.max())
    high = high if high > low else low + 1e-6
    edges = np.linspace(low, high, bins + 1)
    shares = {
        name: np.histogram(scores, edges)[0] / max(1, len(scores)) for name, scores in groups.items() if len(scores)
    }
    top = max(float(share.max()) for share in shares.values())
    place = _Axes((low, high), (0, top * 1.08))
    bars = []
    for (name, share), colour in zip(shares.items(), (GOOD, BAD), strict=False):
        for share_of_bin, left, right in zip(share, edges, edges[1:], strict=False):
            if share_of_bin:
                x, width = place.x(left), place.x(right) - place.x(left)
                y = place.y(share_of_bin)
                bars.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.5, width - 0.6):.1f}" '
                    f'height="{place.y(0) - y:.1f}" fill="{colour}" fill-opacity="0.55">'
                    f"<title>{escape(name)}: {share_of_bin:.1%} between {left:.4f} and {right:.4f}</title></rect>"
                )
    lines = []
    for (name, limit), colour in zip(limits.items(), (WARN, REJECT), strict=False):
        x = place.x(limit)
        lines.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{place.y(0):.1f}" stroke="{colour}" '
            f'stroke-width="1.6" stroke-dasharray="5 3"/>'
        )
        anchor = "end" if name == "warn" else "start"
        shift = -5 if anchor == "end" else 5
        lines.append(_text(x + shift, _TOP - 8, f"{name} {limit:.4f}", anchor=anchor, fill=colour))
    legend = _legend([(name, colour) for name, colour in zip(shares, (GOOD, BAD), strict=False)])
    return _svg(place.frame("score", "share of pictures", percent=True) + "".join(bars + lines) + legend)


def roc(false: Sequence[float], true: Sequence[float], *, marks: Mapping[str, tuple[float, float]]) -> str:
    """The share of defects caught over the share of good pictures flagged; `marks`: where the kit's limits stand."""
    place = _Axes((0, 1), (0, 1))
    path = " ".join(f"{place.x(x):.1f},{place.y(y):.1f}" for x, y in zip(false, true, strict=True))
    inside = (
        f'<line x1="{place.x(0):.1f}" y1="{place.y(0):.1f}" x2="{place.x(1):.1f}" y2="{place.y(1):.1f}" '
        f'stroke="#ddd" stroke-width="1"/>'
        f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="2"/>'
    )
    for (name, (x, y)), colour in zip(marks.items(), (WARN, REJECT), strict=False):
        inside += (
            f'<circle cx="{place.x(x):.1f}" cy="{place.y(y):.1f}" r="5" fill="{colour}">'
            f"<title>{escape(name)}: {y:.1%} of defects caught, {x:.1%} of good parts flagged</title></circle>"
        )
        inside += _text(
            place.x(x) + 9, place.y(y) + 14, f"{name}: {y:.0%} caught, {x:.1%} of good flagged", fill=colour
        )
    return _svg(place.frame("share of good parts flagged", "share of defects caught", percent=True) + inside)


class _Axes:
    """From values to places in the picture."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._across, self._up = across, up

    def x(self, value: float) -> float:
        low, high = self._across
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._up
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def frame(self, below: str, beside: str, *, percent: bool) -> str:
        parts = []
        for value in _ticks(*self._across):
            parts.append(_text(self.x(value), _HEIGHT - _BOTTOM + 17, f"{value:g}", anchor="middle", fill=QUIET))
        for value in _ticks(*self._up, most=5):
            y = self.y(value)
            parts.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee" stroke-width="1"/>'
            )
            parts.append(_text(_LEFT - 7, y + 4, f"{value:.0%}" if percent else f"{value:g}", anchor="end", fill=QUIET))
        base = self.y(self._up[0])
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base:.1f}" y2="{base:.1f}" stroke="#bbb"/>')
        parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, below, anchor="middle", fill=INK))
        parts.append(
            f'<text transform="translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" '
            f'text-anchor="middle" fill="{INK}">{escape(beside)}</text>'
        )
        return "".join(parts)


def _ticks(low: float, high: float, *, most: int = 8) -> list[float]:
    """Round values from low to high, `most` at most."""
    rough = (high - low) / most
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first = np.ceil(low / step - 1e-9) * step
    # Adding 0.0 makes 0 of -0.
    return [float(round(value, 10)) + 0.0 for value in np.arange(first, high + step * 1e-6, step)]


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    parts, x = [], _WIDTH - _RIGHT - sum(30 + 7 * len(name) for name, _ in entries)
    for name, colour in entries:
        parts.append(f'<rect x="{x}" y="4" width="11" height="11" fill="{colour}" fill-opacity="0.55"/>')
        parts.append(_text(x + 16, 14, name, fill=INK))
        x += 30 + 7 * len(name)
    return "".join(parts)


def _text(x: float, y: float, words: str, *, fill: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'


def _svg(inside: str) -> str:
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" {font}>{inside}</svg>'
