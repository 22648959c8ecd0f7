"""Drawn images of three parts on a belt, normal or with a defect.

Pose, light and surface differ in every image. Place, size and strength differ for every defect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import cv2
import numpy as np

from msc_edge.demo.shapes import Field, bevel, box, circle, cover, lit, noise, path

Kind = Literal["flange", "plate", "card"]
Defect = Literal["scratch", "dent", "missing_hole", "stain", "wrong_part"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFECTS: tuple[Defect, ...] = get_args(Defect)

SIDE = 256
_EDITION = 7  # of the artwork on the cards
_SUPERSAMPLING = 2  # images are drawn at this multiple of their size, then averaged


@dataclass
class _Part:
    """A part without light: its outline and height (side, side), its colour (side, side, 3) and its shine."""

    outline: Field
    height: Field
    colour: np.ndarray
    shine: float


def draw_part(kind: Kind, rng: np.random.Generator, defect: Defect | None = None) -> np.ndarray:
    """Draw one image, uint8 (SIDE, SIDE, 3) RGB. Generators with the same state give the same image."""
    side = SIDE * _SUPERSAMPLING
    x, y = _coordinates(rng, side, turns=kind == "flange")
    part = _DRAW[kind](x, y, rng, defect)
    if defect in _DAMAGE:
        _DAMAGE[defect](part, x, y, rng)
    image = _photograph(part, rng)
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small += rng.normal(0, rng.uniform(0.004, 0.012), small.shape)  # the sensor
    return (np.clip(small, 0, 1) * 255).round().astype(np.uint8)


def _coordinates(rng: np.random.Generator, side: int, *, turns: bool) -> tuple[Field, Field]:
    """The part's coordinates at each pixel, randomly shifted, scaled and rotated; `turns`: rotated by more."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    column, row = np.meshgrid(axis, axis)
    angle = rng.uniform(-0.15, 0.15) if turns else rng.normal(0, np.radians(1))
    scale = rng.normal(1, 0.006)
    column, row = (column - rng.normal(0, 0.01)) / scale, (row - rng.normal(0, 0.01)) / scale
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return (cosine * column + sine * row).astype(np.float32), (cosine * row - sine * column).astype(np.float32)


def _flange(x: Field, y: Field, rng: np.random.Generator, defect: Defect | None) -> _Part:
    """A turned steel disc with a bore, a raised boss around it, and six bolt holes."""
    wrong = rng.choice(["five holes", "wide bore"]) if defect == "wrong_part" else ""
    holes = 5 if wrong == "five holes" else 6
    filled = int(rng.integers(holes)) if defect == "missing_hole" else -1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    outline = circle(x, y, 0.8)
    outline = np.maximum(outline, -circle(x, y, 0.3 if wrong == "wide bore" else 0.22))
    for hole in range(holes):
        turn = 2 * np.pi * hole / holes
        if hole != filled:
            outline = np.maximum(outline, -circle(x - 0.6 * np.cos(turn), y - 0.6 * np.sin(turn), 0.075))
    height = 0.03 * bevel(outline, 0.035) + 0.05 * bevel(circle(x, y, 0.42), 0.04)
    # Turning leaves rings, which reflect more light in two sectors.
    rings = np.interp(radius * 400, np.arange(700), rng.standard_normal(700)).astype(np.float32)
    sheen = np.cos(2 * (angle - rng.uniform(0, np.pi)))
    grey = 0.52 + 0.018 * rings + 0.05 * sheen + 0.012 * noise(rng, len(x), (6, 6))
    return _Part(outline, height, np.stack([grey, grey, grey * 1.02], axis=-1), shine=0.25)


def _plate(x: Field, y: Field, rng: np.random.Generator, defect: Defect | None) -> _Part:
    """A milled aluminium plate with four holes, a slot and an engraved line."""
    wrong = rng.choice(["short slot", "two slots"]) if defect == "wrong_part" else ""
    corners = [(-0.66, -0.4), (0.66, -0.4), (-0.66, 0.4), (0.66, 0.4)]
    if defect == "missing_hole":
        corners.pop(int(rng.integers(4)))
    outline = box(x, y, 0.84, 0.58, 0.1)
    for at_x, at_y in corners:
        outline = np.maximum(outline, -circle(x - at_x, y - at_y, 0.07))
    slots = {"short slot": [(0.0, 0.17)], "two slots": [(-0.22, 0.13), (0.22, 0.13)]}.get(wrong, [(0.0, 0.32)])
    for at_x, half in slots:
        outline = np.maximum(outline, -box(x - at_x, y - 0.05, half, 0.065, 0.065))
    engraved = cover(np.abs(box(x, y, 0.5, 0.44, 0.05)) - 0.006)
    height = 0.03 * bevel(outline, 0.03) - 0.008 * engraved
    brushed = noise(rng, len(x), (1.6, 60))
    grey = 0.66 + 0.018 * brushed + 0.01 * noise(rng, len(x), (20, 20)) - 0.12 * engraved
    return _Part(outline, height, np.stack([grey * 1.01, grey, grey * 0.97], axis=-1), shine=0.2)


def _card(x: Field, y: Field, rng: np.random.Generator, defect: Defect | None) -> _Part:
    """A printed card: a coloured head with a ring, lines of text, a bar code, and a punched hole."""
    wrong = rng.choice(["other print", "other colour"]) if defect == "wrong_part" else ""
    outline = box(x, y, 0.82, 0.6, 0.06)
    if defect != "missing_hole":
        outline = np.maximum(outline, -circle(x - 0.62, y + 0.42, 0.09))
    paper = np.array([0.78, 0.76, 0.7], np.float32) * np.float32(rng.normal(1, 0.008))
    colour = paper + 0.008 * noise(rng, len(x), (3, 3))[..., None]

    # Position of the print and amount of ink differ slightly between cards.
    artwork = _artwork(_EDITION + (wrong == "other print"))
    at_x, at_y = ((each - np.float32(rng.normal(0, 0.005)) + 1) * (len(artwork) / 2) - 0.5 for each in (x, y))
    ink = cv2.remap(artwork, at_x.astype(np.float32), at_y.astype(np.float32), cv2.INTER_LINEAR)
    ink *= np.float32(rng.normal(0.93, 0.015))
    head = np.array([0.55, 0.22, 0.2] if wrong == "other colour" else [0.16, 0.32, 0.55], np.float32)
    for amount, tint in ((ink[..., :1], head), (ink[..., 1:], np.array([0.14, 0.14, 0.16], np.float32))):
        colour = colour * (1 - amount) + tint * amount
    return _Part(outline, 0.012 * bevel(outline, 0.02), colour, shine=0.08)


@cache
def _artwork(edition: int) -> np.ndarray:
    """The print of a card over [-1, 1]: amounts of coloured and black ink, float32 (side, side, 2)."""
    side = 1024
    design = np.random.default_rng(edition)
    sheets = np.zeros((2, side, side), np.uint8)

    def pixel(of: float) -> int:
        return round((of + 1) * side / 2)

    def bar(sheet: np.ndarray, left: float, top: float, width: float, height: float) -> None:
        cv2.rectangle(sheet, (pixel(left), pixel(top)), (pixel(left + width), pixel(top + height)), 255, cv2.FILLED)

    head, black = sheets
    bar(head, -0.74, -0.54, 1.14, 0.2)
    cv2.circle(head, (pixel(-0.55), pixel(-0.08)), round(0.13 * side / 2), 255, round(0.035 * side))
    for row in range(4 if edition == _EDITION else 2):
        left = -0.3
        while left < 0.62:
            word = design.uniform(0.06, 0.22)
            bar(black, left, -0.222 + 0.11 * row, word, 0.044)
            left += word + 0.045
    left = -0.62
    while left < 0.6:
        width, gap = design.choice([0.016, 0.032, 0.056]), design.choice([0.016, 0.03])
        bar(black, left, 0.31, width, 0.2)
        left += width + gap
    return np.ascontiguousarray(sheets.transpose(1, 2, 0).astype(np.float32) / 255)


_DRAW: dict[Kind, Callable[[Field, Field, np.random.Generator, Defect | None], _Part]] = {
    "flange": _flange,
    "plate": _plate,
    "card": _card,
}


def _scratch(part: _Part, x: Field, y: Field, rng: np.random.Generator) -> None:
    start, heading, bend = _place(part, x, y, rng), rng.uniform(0, 2 * np.pi), rng.normal(0, 0.25)
    steps = np.arange(9)[:, None] * rng.uniform(0.05, 0.09)
    turns = heading + bend * np.arange(9)[:, None]
    points = start + np.hstack([steps * np.cos(turns), steps * np.sin(turns)])
    groove = cover(path(x, y, points) - np.float32(rng.uniform(0.011, 0.02)))
    part.height -= 0.012 * groove
    part.colour *= 1 + rng.choice([-1, 1]) * rng.uniform(0.5, 0.75) * groove[..., None]


def _dent(part: _Part, x: Field, y: Field, rng: np.random.Generator) -> None:
    (at_x, at_y), radius = _place(part, x, y, rng), rng.uniform(0.1, 0.17)
    part.height -= radius * rng.uniform(1.0, 1.6) * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / radius**2)


def _stain(part: _Part, x: Field, y: Field, rng: np.random.Generator) -> None:
    at_x, at_y = _place(part, x, y, rng)
    ragged = np.hypot(x - at_x, y - at_y) / rng.uniform(0.2, 0.34) + 0.3 * noise(rng, len(x), (40, 40)) - 1
    wet = np.clip(-3 * ragged, 0, 1)[..., None] * rng.uniform(0.65, 0.9)
    part.colour *= 1 - wet * (1 - np.array([0.5, 0.4, 0.25]))


_DAMAGE: dict[Defect | None, Callable[[_Part, Field, Field, np.random.Generator], None]] = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
}


def _place(part: _Part, x: Field, y: Field, rng: np.random.Generator) -> np.ndarray:
    """A random point inside the part and away from its edge, (2,)."""
    rows, columns = np.nonzero(part.outline < -0.06)
    chosen = rng.integers(len(rows))
    return np.array([x[rows[chosen], columns[chosen]], y[rows[chosen], columns[chosen]]])


def _photograph(part: _Part, rng: np.random.Generator) -> np.ndarray:
    """Put the part on the belt with its shadow, under a slightly varying light; float32 RGB."""
    side = len(part.outline)
    direction = rng.normal(-0.75 * np.pi, 0.2)
    light = 0.6 * np.cos(direction), 0.6 * np.sin(direction)
    belt = 0.16 + 0.012 * noise(rng, side, (3, 3)) + 0.006 * noise(rng, side, (60, 60))
    solid = cover(part.outline)
    away = [[1, 0, -12 * light[0]], [0, 1, -12 * light[1]]]
    shadow = cv2.GaussianBlur(cv2.warpAffine(solid, np.array(away), (side, side)), (0, 0), 5)
    background = (belt * (1 - 0.6 * shadow))[..., None] * np.array([1.0, 1.0, 1.05])
    surface = part.colour * lit(part.height * side / 2, light, shine=part.shine)[..., None]
    image = background + solid[..., None] * (surface - background)
    column, row = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    falloff = 1 + 0.07 * (light[0] * column + light[1] * row) - 0.05 * (column**2 + row**2)
    warmth = np.array([1.0, 1.0, 1.0]) + rng.normal(0, 0.006, 3)
    return (image * falloff[..., None] * warmth * rng.normal(1, 0.02)).astype(np.float32)
