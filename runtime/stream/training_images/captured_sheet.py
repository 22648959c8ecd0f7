"""The contact sheet of a capture: thumbnails of the images in the order of time, with their numbers.

It lies beside the folder of images, not in it: whatever is in the folder becomes a training image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msc_edge.drawing import Colour, draw_text, encode_image, fit
from msc_edge.errors import UnreadableImageError
from msc_edge.files import written_whole
from msc_edge.images import read_image
from msc_edge.progress import Report, silent
from msc_edge.runtime.stream.training_images.image_folder import label_of

_COLUMNS = 10
_MOST_CELLS = 500  # of more images, as many are drawn, evenly spaced
_SIDE = 160  # of a cell, in pixels
_GAP, _MARGIN = 8, 16
_CAPTION, _TITLE = 18, 34
_PAPER: Colour = (250, 250, 248)
_INK: Colour = (34, 34, 34)
_FAULT: Colour = (211, 47, 47)


def sheet_path(folder: Path) -> Path:
    """Where the contact sheet of a folder of images is."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}-contact-sheet.jpg")


def write_captured_sheet(folder: Path, paths: Sequence[Path], *, report: Report = silent) -> Path:
    """Draw the images of a folder; the path of the sheet. OutputError from the disk."""
    target = sheet_path(folder)
    data = encode_image(captured_sheet(folder.resolve().name, paths, report=report), ".jpg", quality=90)
    with written_whole(target) as partial:
        partial.write_bytes(data)
    return target


def captured_sheet(title: str, paths: Sequence[Path], *, report: Report = silent) -> np.ndarray:
    """The sheet, uint8 (height, width, 3) RGB. An image that cannot be read is a cell that says so."""
    drawn = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), _MOST_CELLS)).round().astype(int)]
    columns = min(_COLUMNS, max(4, len(drawn)))
    thumbnails: list[np.ndarray | None] = []
    for done, path in enumerate(drawn, start=1):
        try:
            thumbnails.append(fit(read_image(path), width=_SIDE, height=_SIDE))
        except UnreadableImageError:
            thumbnails.append(None)
        report("contact sheet", done, len(drawn))
    height = max((each.shape[0] for each in thumbnails if each is not None), default=_SIDE) + _CAPTION + _GAP
    rows = -(-len(drawn) // columns)
    size = 2 * _MARGIN + _TITLE + rows * height, 2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP
    sheet = np.full((*size, 3), _PAPER, np.uint8)
    part = f", {len(drawn)} of them drawn" if len(drawn) < len(paths) else ""
    draw_text(sheet, f"{title}: {len(paths)} images{part}", left=_MARGIN, baseline=32, scale=0.6, colour=_INK)
    for place, (path, thumbnail) in enumerate(zip(drawn, thumbnails, strict=True)):
        row, column = divmod(place, columns)
        top, left = _MARGIN + _TITLE + row * height, _MARGIN + column * (_SIDE + _GAP)
        number, time = label_of(path)
        baseline = top + height - _GAP - 5
        draw_text(sheet, f"{number}", left=left, baseline=baseline, scale=0.45, colour=_INK)
        draw_text(sheet, f"{time} UTC", left=left + 70, baseline=baseline, scale=0.38, colour=_INK)
        if thumbnail is None:
            draw_text(sheet, "unreadable", left=left, baseline=top + 40, scale=0.5, colour=_FAULT)
        else:
            sheet[top : top + thumbnail.shape[0], left : left + thumbnail.shape[1]] = thumbnail
    return sheet
