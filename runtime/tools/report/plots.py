"""Plots as inline SVG: a report is one file, which opens without a network and can be printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup

from msc_edge.axes import INK, LEFT, LETTER, QUIET, TOP, WIDTH, Axes, svg, text
from msc_edge.calibration import Limits
from msc_edge.marks import Shape, mark

NORMAL, DEFECT = "var(--scores-normal, #1f77b4)", "var(--scores-defect, #c62828)"
NEUTRAL = "var(--scores, #5a6b7b)"
"""Colours of scores: those of the page, in its light or dark scheme."""


@dataclass(frozen=True)
class _LimitStyle:
    colour: str
    dashes: str
    shape: Shape


_LIMITS = {
    "warn": _LimitStyle("var(--warn, #a35f00)", "2 3", "triangle"),
    "reject": _LimitStyle("var(--bad, #c62828)", "9 3", "square"),
}
_HATCH = "hatch"


@dataclass(frozen=True)
class Scores:
    """The scores of a group of images, float64 (n,), n >= 1, drawn in one colour."""

    name: str
    values: np.ndarray
    colour: str
    hatched: bool = False
    """Bars with oblique lines, through which the bars of another group are seen."""

    @property
    def fill(self) -> str:
        """The fill of the bars."""
        return f"url(#{_HATCH})" if self.hatched else self.colour


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
    parts = [_hatch(group.colour) for group in groups if group.hatched]
    parts += [axes.frame("score: larger is more anomalous", "share of images", percent=(False, True))]
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
    described = (
        f"{group.name}: {len(group.values)}, scores {group.values.min():.4g} to {group.values.max():.4g}, "
        f"{int((group.values > limits.reject.score).sum())} above the reject limit"
        for group in groups
    )
    marked = (f"{name} limit at {limit:.4g}" for name, limit in lines.items())
    return svg("".join(parts), title="Histogram of the scores", description=f"{'. '.join((*described, *marked))}.")


def _hatch(colour: str) -> str:
    """Oblique lines, for the fill of bars."""
    return (
        f'<defs><pattern id="{_HATCH}" width="5" height="5" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><path d="M1.1 0V5" stroke="{colour}" stroke-width="2.2"/></pattern></defs>'
    )


def _bar(axes: Axes, group: Scores, share: float, left: float, right: float) -> str:
    x, width = axes.x(left), axes.x(right) - axes.x(left)
    # One image among thousands stays visible: it may be the one that matters.
    height = max(1.5, axes.y(0) - axes.y(share))
    return (
        f'<rect x="{x:.1f}" y="{axes.y(0) - height:.1f}" width="{max(0.5, width - 0.6):.1f}" height="{height:.1f}" '
        f'fill="{group.fill}" stroke="{group.colour}" stroke-width="0.8">'
        f"<title>{escape(group.name)}: {share:.2%} between {left:.4g} and {right:.4g}</title></rect>"
    )


def _line(axes: Axes, name: str, limit: float, base: float) -> str:
    x = axes.x(limit)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{base - 9:.1f}" y2="{axes.y(0):.1f}" stroke="{_LIMITS[name].colour}" '
        f'stroke-width="1.8" stroke-dasharray="{_LIMITS[name].dashes}"/>'
    )


def _limit_label(axes: Axes, name: str, limit: float, base: float) -> str:
    """The name of a limit, beside its line: away from the other limit, or on the other side where the plot ends."""
    label = f"{name} above {limit:.4g}"
    width = LETTER * len(label) + 6
    left = axes.x(limit) > width if name == "warn" else axes.x(limit) + width > WIDTH
    x, anchor = axes.x(limit) + (-6 if left else 6), "end" if left else "start"
    return text(x, base, label, anchor=anchor, fill=_LIMITS[name].colour)


def _legend(groups: Sequence[Scores]) -> str:
    parts, x = [], float(LEFT)
    for group in groups:
        parts.append(
            f'<rect x="{x:.1f}" y="4" width="11" height="11" fill="{group.fill}" stroke="{group.colour}"/>'
            + text(x + 16, 14, group.name, fill=INK)
        )
        x += 34 + LETTER * len(group.name)
    return "".join(parts)


def roc(
    false: Sequence[float] | np.ndarray,
    true: Sequence[float] | np.ndarray,
    *,
    marks: Mapping[str, tuple[float, float]],
    up_to: float = 1.0,
) -> Markup:
    """The ROC curve: the share of anomalous images found over the share of normal images flagged, both ascending.

    `marks`: the limits `warn` and `reject` as points (normal images flagged, anomalous images found). `up_to`: the
    largest share of normal images flagged that is drawn, in (0, 1].
    """
    axes = Axes((0, up_to), (0, 1))
    false, true = np.asarray(false, float), np.asarray(true, float)
    shown = false <= up_to
    across = [*false[shown], up_to]
    up = [*true[shown], float(np.interp(up_to, false, true)) if up_to < 1 else 1.0]
    # No finer than the plot can show: most of many thousand points coincide.
    points = dict.fromkeys(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in zip(across, up, strict=True))
    region = "" if up_to == 1 else f", up to {up_to:.0%}".replace("%", " %")
    parts = [
        axes.frame(f"normal images flagged{region}", "anomalous images found", percent=(True, True)),
        f'<line x1="{axes.x(0):.1f}" y1="{axes.y(0):.1f}" x2="{axes.x(up_to):.1f}" y2="{axes.y(up_to):.1f}" '
        f'stroke="{QUIET}" stroke-dasharray="3 4"><title>chance</title></line>',
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{INK}" stroke-width="2"/>',
    ]
    labels = []
    for row, (name, (x, y)) in enumerate(marks.items()):
        base, style = 14 + 18 * row, _LIMITS[name]
        parts.append(mark(style.shape, LEFT + 6, base - 4, colour=style.colour))
        if x <= up_to:
            parts.append(mark(style.shape, axes.x(x), axes.y(y), colour=style.colour))
        label = f"{name}: {y:.1%} found, {x:.1%} of normal images flagged".replace("%", " %")
        labels.append(label)
        parts.append(text(LEFT + 18, base, label, fill=style.colour))
    found = (f"{found_at(false, true, rate):.1%} found at {rate:.0%}".replace("%", " %") for rate in (0.01, 0.05, 0.1))
    return svg(
        "".join(parts),
        title=f"ROC curve{region}",
        description=f"{'. '.join(labels)}. {', '.join(found)} of them flagged.",
    )


def found_at(false: np.ndarray, true: np.ndarray, rate: float) -> float:
    """The largest share of anomalous images found with at most this share of normal images flagged.

    `false` and `true`: the points of the ROC curve, ascending, from 0.
    """
    return float(true[np.searchsorted(false, rate + 1e-12, side="right") - 1])
