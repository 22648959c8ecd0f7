"""`views.png` of a run: some training images, each with the two augmented views of its first step.

It shows whether an augmentation destroys the part: whether its defects would still be visible, and whether colours that
matter are changed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msc_edge.drawing import Colour, draw_text, encode_image, square, text_width
from msc_edge.errors import writing
from msc_edge.train.fine_tune import batch_of, places_to_train_on
from msc_edge.train.settings import FineTuning
from msc_edge.train.views import make_views

_SHOWN = 8  # images, at most
_COLUMNS = 2  # images side by side, each with its views
_SIDE = 168  # of an image, in pixels
_BETWEEN, _GAP, _MARGIN = 4, 24, 24
_CAPTION, _TITLE = 28, 62
_INK: Colour = (34, 34, 34)
_QUIET: Colour = (105, 105, 105)
_PAPER, _BACKGROUND = 250, 225  # grey levels


def write_view_sheet(
    path: Path, training_copies: Sequence[Tensor], names: Sequence[str], settings: FineTuning, *, size: int
) -> None:
    """Draw the first images of the first step with the views that the training makes of them, as PNG.

    `training_copies`: uint8 (3, h, w), those of `fine_tune`, and `names` of the images. `size`: side of a view in
    pixels. The views depend on the seed only, and no random stream of the training is used. OutputError from the disk.
    """
    places = places_to_train_on(len(training_copies), settings)
    batch, draws = batch_of(0, images=len(places), settings=settings)
    chosen = [places[i] for i in batch[:_SHOWN]]
    images = [training_copies[i] for i in chosen]
    part = slice(0, len(chosen))
    views = [make_views(images, draw.take(part), size=size, device=torch.device("cpu")) for draw in draws]
    rows = [[copy, *(view[i] for view in views)] for i, copy in enumerate(images)]
    sheet = _sheet([[_pixels(each) for each in row] for row in rows], [names[i] for i in chosen])
    with writing(path):
        path.write_bytes(encode_image(sheet, ".png"))


def _pixels(image: Tensor) -> np.ndarray:
    """uint8 (h, w, 3) from (3, h, w), uint8 or float in 0..255."""
    return np.ascontiguousarray(image.float().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def _sheet(rows: Sequence[Sequence[np.ndarray]], names: Sequence[str]) -> np.ndarray:
    """The sheet, uint8 (height, width, 3): each row an image with its views."""
    across = len(rows[0]) * _SIDE + (len(rows[0]) - 1) * _BETWEEN
    columns = min(_COLUMNS, len(rows))
    width = 2 * _MARGIN + columns * across + (columns - 1) * _GAP
    height = _TITLE + -(-len(rows) // columns) * (_SIDE + _CAPTION) + _MARGIN
    sheet = np.full((height, width, 3), _PAPER, np.uint8)
    draw_text(sheet, "What the training sees", left=_MARGIN, baseline=28, scale=0.6, colour=_INK)
    draw_text(sheet, "image, first view, second view", left=_MARGIN, baseline=50, scale=0.42, colour=_QUIET)
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        left = _MARGIN + number % columns * (across + _GAP)
        top = _TITLE + number // columns * (_SIDE + _CAPTION)
        for place, image in enumerate(row):
            x = left + place * (_SIDE + _BETWEEN)
            sheet[top : top + _SIDE, x : x + _SIDE] = square(image, side=_SIDE, background=_BACKGROUND)
        draw_text(sheet, _shortened(name, across), left=left, baseline=top + _SIDE + 16, scale=0.42, colour=_INK)
    return sheet


def _shortened(name: str, width: int) -> str:
    """The end of a path that fits into `width` pixels: the file name is at the end."""
    shown = name
    while text_width(shown, scale=0.42) > width:
        shown = "..." + shown.removeprefix("...")[1:]
    return shown
