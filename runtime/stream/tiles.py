"""What the window of a stream displays: a tile for each source, with its last frame and verdict, or why there is none.

A tile that is not live is grey and says so. Nothing of it looks like the verdict of a part that is there now.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from msc_edge.drawing import VERDICT_COLOURS, Colour, draw_text, fit, printable, text_width
from msc_edge.overlay import overlay
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.sources.outage import Outage

MAX_WIDTH, MAX_HEIGHT, MIN_WIDTH = 1280, 720, 320
BAR = 64  # height of the two lines below a frame, in pixels
_UNSCORED: Colour = (180, 180, 180)
_BACKGROUND = 24
_SCALES = (0.8, 0.65, 0.5, 0.45, 0.4)
_MARGIN = 12


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text in a bar."""

    text: str
    colour: Colour = _UNSCORED


def drawn(decision: Decision, *, width: int = MAX_WIDTH, height: int = MAX_HEIGHT) -> np.ndarray:
    """The frame with its verdict, score and limit, source and time: uint8 (h, w, 3), RGB.

    The frame fits into `width` x `height` pixels. One that is not normal is shown with its heatmap.
    """
    frame, result = decision.frame, decision.result
    assert frame.image is not None, "a frame that was read has an image"
    colour = VERDICT_COLOURS[result.verdict] if result else _UNSCORED
    text = f"{result.verdict}  {result.score:.4f}, limit {result.limit:.4f}" if result else frame.error or "unreadable"
    image = frame.image
    if result and result.grid_map is not None and result.verdict != "normal":
        image = overlay(fit(image, width=width, height=height), result.grid_map)
    moment = frame.time.astimezone().strftime("%H:%M:%S")
    return _with_bar(_bordered(image, colour, width, height), Line(text, colour), Line(f"{frame.source}  {moment}"))


def without_image(
    name: str, outage: Outage, last: np.ndarray | None, *, width: int = MAX_WIDTH, height: int = MAX_HEIGHT
) -> np.ndarray:
    """A tile of a source that is not live: its last frame in grey, if there is one, and since when and why.

    `last`: as `drawn` returned it.
    """
    return _grey_tile(last, f"NO IMAGE, {name}, {outage.sentence()}", outage.reason, width, height)


def not_inspected(
    decision: Decision, last: np.ndarray | None, *, width: int = MAX_WIDTH, height: int = MAX_HEIGHT
) -> np.ndarray:
    """A tile for a file that cannot be read, or a frame that the region of its source does not fit; see above."""
    frame = decision.frame
    moment = frame.time.astimezone().strftime("%H:%M:%S")
    return _grey_tile(last, f"NO IMAGE, {frame.source}, {moment}", frame.error or "unreadable", width, height)


def _grey_tile(last: np.ndarray | None, what: str, why: str, width: int, height: int) -> np.ndarray:
    image = np.full((240, 320, 3), _BACKGROUND, np.uint8) if last is None else grey(last[:-BAR])
    tile = _with_bar(_bordered(image, _UNSCORED, width, height), Line(what, (255, 255, 255)), Line(why))
    _write_across(tile[:-BAR], "NO IMAGE")
    return tile


def grey(image: np.ndarray) -> np.ndarray:
    """An image without colours, at half of its brightness."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 2, cv2.COLOR_GRAY2RGB)


def cell_size(count: int) -> tuple[int, int]:
    """Width and height, in pixels, that each frame of `count` tiles may have."""
    columns = _columns(count)
    rows = math.ceil(count / columns)
    return MAX_WIDTH // columns, (MAX_HEIGHT + BAR) // rows - BAR


def arranged(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """All tiles in one image, in rows of cells of one size."""
    if len(tiles) == 1:
        return tiles[0]
    columns = _columns(len(tiles))
    height, width = (max(tile.shape[side] for tile in tiles) for side in (0, 1))
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full((rows * height, columns * width, 3), _BACKGROUND, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        left += (width - tile.shape[1]) // 2
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))


def _bordered(image: np.ndarray, colour: Colour, width: int, height: int) -> np.ndarray:
    if image.shape[1] < MIN_WIDTH <= width:
        fitted = fit(image, width=MIN_WIDTH, height=height, enlarge="pixels")
    else:
        fitted = fit(image, width=width, height=height)
    cv2.rectangle(fitted, (0, 0), (fitted.shape[1] - 1, fitted.shape[0] - 1), colour, 4)
    return fitted


def _with_bar(image: np.ndarray, first: Line, second: Line) -> np.ndarray:
    height, width = image.shape[:2]
    canvas = np.full((height + BAR, max(width, MIN_WIDTH), 3), _BACKGROUND, np.uint8)
    left = (canvas.shape[1] - width) // 2
    canvas[:height, left : left + width] = image
    _write(canvas[height:], first, baseline=28, scales=_SCALES)
    _write(canvas[height:], second, baseline=52, scales=_SCALES[2:])
    return canvas


def _write(bar: np.ndarray, line: Line, *, baseline: int, scales: Sequence[float]) -> None:
    """Write a line in the largest scale in which it fits; shortened, if it fits in none."""
    text, available = printable(line.text), bar.shape[1] - 2 * _MARGIN
    fitting = [scale for scale in scales if text_width(text, scale=scale, thickness=_weight(scale)) <= available]
    scale = fitting[0] if fitting else scales[-1]
    while text and text_width(text, scale=scale, thickness=_weight(scale)) > available:
        text = f"{text[:-4]}..." if len(text) > 4 else ""
    draw_text(bar, text, left=_MARGIN, baseline=baseline, scale=scale, colour=line.colour, thickness=_weight(scale))


def _weight(scale: float) -> int:
    return 1 if scale <= 0.5 else 2


def _write_across(image: np.ndarray, text: str) -> None:
    """Write a text across the middle of an image, in half of its width."""
    height, width = image.shape[:2]
    scale = max(0.5, 0.5 * width / text_width(text, scale=1.0, thickness=2))
    left = (width - text_width(text, scale=scale, thickness=2)) // 2
    for colour, thickness in ((0, 0, 0), 8), ((255, 255, 255), 2):
        draw_text(image, text, left=max(0, left), baseline=height // 2, scale=scale, colour=colour, thickness=thickness)
