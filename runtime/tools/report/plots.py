"""Plots as inline SVG: a report is one file, which opens without a network and can be printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup

from msc_edge.axes import INK, LEFT, LETTER, QUIET, TOP, WIDTH, Axes, svg, text
from msc_edge.calibration import Limits

NORMAL, DEFECT = "var(--scores-normal, #1f77b4)", "var(--scores-defect, #c62828)"
NEUTRAL = "var(--scores, #5a6b7b)"
"""Colours of scores: those of the page, in its light or dark scheme."""
_LIMITS = {"warn": "var(--warn, #a35f00)", "reject": "var(--bad, #c62828)"}


@dataclass(frozen=True)
class Scores:
    """The scores of a group of images, float64 (n,), n >= 1, drawn in one colour."""

    name: str
    values: np.ndarray
    colour: str


def histogram(groups: Sequence[Scores], limits: Limits, *, bins: int = 48) -> Markup:
    """A histogram of the scores of each group, as shares of the group, with the limits."""
    lines = {"warn": limits.warn.score} if limits.warn.score < limits.reject.score else {}
    lines["reject"] = limits.reject.score
    low = min(*lines.values(), *(float(group.values.min()) for group in groups))
    high = max(*lines.values(), *(float(group.values.max()) for group in groups))
    if high - low < 1e-6:
        low, high = low - 0.01, high + 0.01
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(group.values, edges)[0] / len(group.values) for group in groups]
    axes = Axes((low, high), (0, 1.05 * max(float(share.max()) for share in shares)))
    parts = [axes.frame("score: larger is more anomalous", "share of images", percent=(False, True))]
    for group, share in zip(groups, shares, strict=True):
        parts += [
            _bar(axes, group, float(height), float(left), float(right))
            for height, left, right in zip(share, edges, edges[1:], strict=False)
            if height
        ]
    for row, (name, limit) in enumerate(lines.items()):
        parts.append(_line(axes, name, limit, TOP - 22 + 15 * row))
    for row, (name, limit) in enumerate(lines.items()):
        parts.append(_limit_label(axes, name, limit, TOP - 22 + 15 * row))
    parts.append(_legend(groups))
    return svg("".join(parts), "Histogram of the scores")


def _bar(axes: Axes, group: Scores, share: float, left: float, right: float) -> str:
    x, width = axes.x(left), axes.x(right) - axes.x(left)
    # One image among thousands stays visible: it may be the one that matters.
    height = max(1.5, axes.y(0) - axes.y(share))
    return (
        f'<rect x="{x:.1f}" y="{axes.y(0) - height:.1f}" width="{max(0.5, width - 0.6):.1f}" height="{height:.1f}" '
        f'fill="{group.colour}" fill-opacity="0.55">'
        f"<title>{escape(group.name)}: {share:.2%} between {left:.4g} and {right:.4g}</title></rect>"
    )


def _line(axes: Axes, name: str, limit: float, base: float) -> str:
    x = axes.x(limit)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{base - 9:.1f}" y2="{axes.y(0):.1f}" stroke="{_LIMITS[name]}" '
        f'stroke-width="1.6" stroke-dasharray="5 3"/>'
    )


def _limit_label(axes: Axes, name: str, limit: float, base: float) -> str:
    """The name of a limit, beside its line: away from the other limit, or on the other side where the plot ends."""
    label = f"{name} above {limit:.4g}"
    width = LETTER * len(label) + 6
    left = axes.x(limit) > width if name == "warn" else axes.x(limit) + width > WIDTH
    return text(axes.x(limit) + (-6 if left else 6), base, label, anchor="end" if left else "start", fill=_LIMITS[name])


def _legend(groups: Sequence[Scores]) -> str:
    parts, x = [], float(LEFT)
    for group in groups:
        parts.append(
            f'<rect x="{x:.1f}" y="4" width="11" height="11" fill="{group.colour}" fill-opacity="0.55"/>'
            + text(x + 16, 14, group.name, fill=INK)
        )
        x += 34 + LETTER * len(group.name)
    return "".join(parts)


def roc(
    false: Sequence[float] | np.ndarray, true: Sequence[float] | np.ndarray, *, marks: Mapping[str, tuple[float, float]]
) -> Markup:
    """The ROC curve: the share of anomalous images found over the share of normal images flagged, both ascending.

    `marks`: the limits `warn` and `reject` as points (normal images flagged, anomalous images found).
    """
    axes = Axes((0, 1), (0, 1))
    # No finer than the plot can show: most of many thousand points coincide.
    points = dict.fromkeys(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in zip(false, true, strict=True))
    parts = [
        axes.frame("normal images flagged", "anomalous images found", percent=(True, True)),
        f'<line x1="{axes.x(0):.1f}" y1="{axes.y(0):.1f}" x2="{axes.x(1):.1f}" y2="{axes.y(1):.1f}" '
        f'stroke="{QUIET}" stroke-opacity="0.5" stroke-dasharray="3 4"><title>chance</title></line>',
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{INK}" stroke-width="2"/>',
    ]
    for row, (name, (x, y)) in enumerate(marks.items()):
        base = 14 + 18 * row
        for across, up in ((axes.x(x), axes.y(y)), (LEFT + 6, base - 4)):
            parts.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="5" fill="{_LIMITS[name]}"/>')
        label = f"{name}: {y:.1%} found, {x:.1%} of normal images flagged".replace("%", " %")
        parts.append(text(LEFT + 18, base, label, fill=_LIMITS[name]))
    return svg("".join(parts), "ROC curve")
