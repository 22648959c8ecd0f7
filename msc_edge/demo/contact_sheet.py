"""A contact sheet: images with their scores, each beside its nearest normal image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.drawing import VERDICT_COLOURS, Colour, draw_text, encode_image, square, text_width
from msc_edge.errors import writing
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.report.legend import heatmap_scale

_SIDE = 168  # of an image, in pixels
_BORDER = 3
_GAP, _MARGIN = 18, 28
_CAPTION, _TITLE = 44, 46
_COLUMNS = 4
_INK: Colour = (34, 34, 34)
_QUIET: Colour = (105, 105, 105)
_PAPER: Colour = (250, 250, 248)
_SCALE_WIDTH, _SCALE_HEIGHT = 200, 16
_BACKGROUND = 225  # grey level around an image that is not square


@dataclass(frozen=True)
class Cell:
    """One image and its nearest normal image, both uint8 (h, w, 3) RGB, with the result."""

    image: np.ndarray
    nearest: np.ndarray
    name: str
    result: Result


def contact_sheet(sections: Sequence[tuple[str, Sequence[Cell]]]) -> np.ndarray:
    """Draw titled sections of cells, uint8 (height, width, 3) RGB.

    A legend of the heatmaps follows if the kit of the results has patches.
    """
    width = 2 * _MARGIN + _COLUMNS * (2 * _SIDE + 4) + (_COLUMNS - 1) * _GAP
    strips = [_strip(title, cells, width) for title, cells in sections]
    margin = np.full((_MARGIN, width, 3), _PAPER, np.uint8)
    if any(cell.result.grid_map is not None for _, cells in sections for cell in cells):
        strips.append(_legend(width))
    return np.vstack([margin, *strips])


def write_contact_sheet(path: Path, sheet: np.ndarray) -> None:
    """Write it as PNG. OutputError from the disk."""
    with writing(path):
        path.write_bytes(encode_image(sheet, ".png"))


def _strip(title: str, cells: Sequence[Cell], width: int) -> np.ndarray:
    rows = -(-len(cells) // _COLUMNS)
    strip = np.full((_TITLE + rows * (_SIDE + _CAPTION + _GAP), width, 3), _PAPER, np.uint8)
    draw_text(strip, title, left=_MARGIN, baseline=18, scale=0.62, colour=_INK)
    for i, cell in enumerate(cells):
        row, column = divmod(i, _COLUMNS)
        left = _MARGIN + column * (2 * _SIDE + 4 + _GAP)
        top = _TITLE + row * (_SIDE + _CAPTION + _GAP)
        _draw_cell(strip, cell, left, top)
    return strip


def _legend(width: int) -> np.ndarray:
    strip = np.full((_SCALE_HEIGHT + 46, width, 3), _PAPER, np.uint8)
    strip[:_SCALE_HEIGHT, _MARGIN : _MARGIN + _SCALE_WIDTH] = heatmap_scale(width=_SCALE_WIDTH, height=_SCALE_HEIGHT)
    for share, text in ((0.0, "0"), (0.5, "limit"), (1.0, "2 x limit")):
        left = _MARGIN + round(share * (_SCALE_WIDTH - text_width(text, scale=0.38)))
        draw_text(strip, text, left=left, baseline=_SCALE_HEIGHT + 15, scale=0.38, colour=_QUIET)
    text = "heatmap over the image; regions above the limit have an outline"
    draw_text(strip, text, left=_MARGIN + _SCALE_WIDTH + 16, baseline=13, scale=0.42, colour=_INK)
    return strip


def _draw_cell(sheet: np.ndarray, cell: Cell, left: int, top: int) -> None:
    colour = VERDICT_COLOURS[cell.result.verdict]
    right = left + _SIDE + 4
    sheet[top : top + _SIDE, left : left + _SIDE] = colour
    inside = _SIDE - 2 * _BORDER
    sheet[top + _BORDER : top + _BORDER + inside, left + _BORDER : left + _BORDER + inside] = square(
        cell.image, side=inside, background=_BACKGROUND
    )
    sheet[top : top + _SIDE, right : right + _SIDE] = square(cell.nearest, side=_SIDE, background=_BACKGROUND)
    score = f"{cell.result.score:.4f}  {cell.result.verdict}"
    draw_text(sheet, score, left=left, baseline=top + _SIDE + 17, scale=0.47, colour=colour)
    draw_text(sheet, cell.name, left=left, baseline=top + _SIDE + 36, scale=0.42, colour=_INK)
    draw_text(sheet, "nearest normal", left=right, baseline=top + _SIDE + 17, scale=0.42, colour=_QUIET)
