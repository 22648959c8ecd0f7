"""A contact sheet: images with their scores, each beside the normal image most like it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.errors import writing

_SIDE = 168  # of an image, in pixels
_GAP, _MARGIN = 18, 28
_CAPTION, _TITLE = 44, 46
_COLUMNS = 4
_INK, _QUIET, _PAPER = (34, 34, 34), (120, 120, 120), (250, 250, 248)  # RGB
_COLOURS: dict[Verdict, tuple[int, int, int]] = {
    "normal": (56, 142, 60),
    "warn": (245, 160, 0),
    "reject": (211, 47, 47),
}


@dataclass(frozen=True)
class Cell:
    """One image, uint8 (h, w, 3) RGB, what is known of it, and the normal image nearest to it."""

    image: np.ndarray
    nearest: np.ndarray
    name: str
    score: float
    verdict: Verdict


def contact_sheet(sections: Sequence[tuple[str, Sequence[Cell]]]) -> np.ndarray:
    """Draw titled sections of cells, uint8 (height, width, 3) RGB."""
    width = 2 * _MARGIN + _COLUMNS * (2 * _SIDE + 4) + (_COLUMNS - 1) * _GAP
    strips = [_strip(title, cells, width) for title, cells in sections]
    margin = np.full((_MARGIN, width, 3), _PAPER, np.uint8)
    return np.vstack([margin, *strips])


def write_contact_sheet(path: Path, sheet: np.ndarray) -> None:
    """Write it as PNG."""
    _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    with writing(path):
        path.write_bytes(data.tobytes())


def _strip(title: str, cells: Sequence[Cell], width: int) -> np.ndarray:
    rows = -(-len(cells) // _COLUMNS)
    strip = np.full((_TITLE + rows * (_SIDE + _CAPTION + _GAP), width, 3), _PAPER, np.uint8)
    _write(strip, title, _MARGIN, 18, scale=0.62, ink=_INK)
    for i, cell in enumerate(cells):
        row, column = divmod(i, _COLUMNS)
        left = _MARGIN + column * (2 * _SIDE + 4 + _GAP)
        top = _TITLE + row * (_SIDE + _CAPTION + _GAP)
        _draw_cell(strip, cell, left, top)
    return strip


def _draw_cell(sheet: np.ndarray, cell: Cell, left: int, top: int) -> None:
    for image, at in ((cell.image, left), (cell.nearest, left + _SIDE + 4)):
        sheet[top : top + _SIDE, at : at + _SIDE] = _fitted(image)
    colour = _COLOURS[cell.verdict]
    cv2.rectangle(sheet, (left, top), (left + _SIDE - 1, top + _SIDE - 1), colour, 3)
    _write(sheet, f"{cell.score:.4f}  {cell.verdict}", left, top + _SIDE + 17, scale=0.47, ink=colour)
    _write(sheet, cell.name, left, top + _SIDE + 36, scale=0.42, ink=_INK)
    _write(sheet, "nearest normal", left + _SIDE + 4, top + _SIDE + 17, scale=0.42, ink=_QUIET)


def _fitted(image: np.ndarray) -> np.ndarray:
    """The whole image in a square, on grey."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.full((_SIDE, _SIDE, 3), 225, np.uint8)
    top, left = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def _write(sheet: np.ndarray, text: str, left: int, baseline: int, *, scale: float, ink: tuple[int, int, int]) -> None:
    cv2.putText(sheet, text, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
