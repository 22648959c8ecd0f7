"""Marks of plots: shapes that differ without their colours, and dashes of lines."""

from typing import Literal

Shape = Literal["circle", "square", "triangle", "diamond", "cross"]
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond", "cross")
DASHES = ("none", "9 4", "2 3", "9 3 2 3", "14 4")
"""Of lines that differ, for `stroke-dasharray`; the first is solid."""


def mark(shape: Shape, x: float, y: float, *, colour: str, size: float = 5) -> str:
    """A shape around (x, y); `size` is about half of its width, in units of the plot."""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="{colour}"/>'
    if shape == "square":
        side = 0.9 * size
        path = f"M{x - side:.1f} {y - side:.1f}h{2 * side:.1f}v{2 * side:.1f}h{-2 * side:.1f}z"
    elif shape == "triangle":
        path = f"M{x:.1f} {y - 1.4 * size:.1f}l{1.2 * size:.1f} {2.1 * size:.1f}h{-2.4 * size:.1f}z"
    elif shape == "diamond":
        wide = 1.25 * size
        path = f"M{x:.1f} {y - wide:.1f}l{wide:.1f} {wide:.1f}l{-wide:.1f} {wide:.1f}l{-wide:.1f} {-wide:.1f}z"
    else:
        path = f"M{x - size:.1f} {y - size:.1f}l{2 * size:.1f} {2 * size:.1f}m0 {-2 * size:.1f}l{-2 * size:.1f} "
        return f'<path d="{path}{2 * size:.1f}" fill="none" stroke="{colour}" stroke-width="{0.5 * size:.1f}"/>'
    return f'<path d="{path}" fill="{colour}"/>'
