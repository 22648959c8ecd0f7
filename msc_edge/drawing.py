"""Images for people: verdict colours, shrinking, encoding, thumbnails and labels.

All images are uint8 (height, width, 3), RGB.
"""

from typing import Literal

import cv2
import numpy as np

from msc_edge.calibration import Verdict

Colour = tuple[int, int, int]

VERDICT_COLOURS: dict[Verdict, Colour] = {"normal": (56, 142, 60), "warn": (239, 140, 0), "reject": (211, 47, 47)}
THUMBNAIL_SIDE = 256
SHOWN_SIDE = 512
"""Longer side of a scored image in a report, in pixels: it can be enlarged there."""
_THUMBNAIL_QUALITY = 85
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def fit(image: np.ndarray, *, width: int, height: int, enlarge: Literal["no", "pixels", "smooth"] = "no") -> np.ndarray:
    """A copy that fits into `width` x `height` pixels and keeps its proportions.

    A smaller image stays as it is, or is enlarged: with `pixels` by a whole factor, so that each pixel becomes a
    square, with `smooth` to the full size, interpolated.
    """
    rows, columns = image.shape[:2]
    scale = min(width / columns, height / rows)
    if scale < 1 or (enlarge == "smooth" and scale > 1):
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if enlarge == "pixels" and scale >= 2:
        size = columns * int(scale), rows * int(scale)
        return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return image.copy()


def square(image: np.ndarray, *, side: int, background: int) -> np.ndarray:
    """The whole image in a square of `side` pixels, on a grey level; smaller ones are enlarged."""
    shown = fit(image, width=side, height=side, enlarge="smooth")
    found = np.full((side, side, 3), background, np.uint8)
    top, left = (side - shown.shape[0]) // 2, (side - shown.shape[1]) // 2
    found[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return found


def encode_image(image: np.ndarray, suffix: Literal[".jpg", ".png"], *, quality: int = 95) -> bytes:
    """The bytes of an image file; `quality` of a JPEG, 0 to 100. ValueError where it cannot be encoded."""
    # Not cv2.imwrite: it fails on non-ASCII paths on Windows, and does not report a full disk.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    try:
        encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise ValueError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded as {suffix}"
        ) from error
    if not encoded:
        raise ValueError(f"an image of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded as {suffix}")
    return data.tobytes()


def thumbnail(image: np.ndarray, *, side: int = THUMBNAIL_SIDE) -> bytes:
    """A JPEG of the image with its longer side at most `side` pixels."""
    return encode_image(fit(image, width=side, height=side), ".jpg", quality=_THUMBNAIL_QUALITY)


def draw_text(
    image: np.ndarray, text: str, *, left: int, baseline: int, scale: float, colour: Colour, thickness: int = 1
) -> None:
    """Draw one line of text into the image. Characters outside of ASCII become question marks."""
    cv2.putText(image, printable(text), (left, baseline), _FONT, scale, colour, thickness, cv2.LINE_AA)


def text_width(text: str, *, scale: float, thickness: int = 1) -> int:
    """The width of one line of text, in pixels."""
    return cv2.getTextSize(printable(text), _FONT, scale, thickness)[0][0]


def printable(text: str) -> str:
    """The text in the characters that OpenCV can draw: printable ASCII, others become question marks."""
    ascii_text = text.encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in ascii_text)
