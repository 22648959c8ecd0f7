"""The preprocessing of an image before the backbone, described as data.

A run and a kit record this description. The computation is one torch module (`msc_edge.train.preprocess`), which
training evaluates with, and the same computation as a graph in `model.onnx`.
"""

from typing import Literal, NamedTuple

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from msc_edge.errors import UsageError
from msc_edge.ignore_mask import IgnoreMask, ignored_pixels

PresetName = Literal["whole-frame", "paper"]

# The statistics that torchvision's ImageNet weights expect, for RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_TILES = 64


class Region(BaseModel):
    """The region of interest: a rectangle of the camera frame, in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: NonNegativeInt
    y: NonNegativeInt
    width: PositiveInt
    height: PositiveInt

    @classmethod
    def parse(cls, text: str) -> "Region":
        """Parse `x,y,w,h`. UsageError for any other text."""
        try:
            x, y, width, height = (int(part) for part in text.split(","))
            return cls(x=x, y=y, width=width, height=height)
        except ValueError as error:
            raise UsageError(
                f"--roi {text}: expected four whole numbers x,y,w,h in pixels, with w and h at least 1"
            ) from error

    def fits(self, *, height: int, width: int) -> bool:
        """Whether a frame of this size contains the whole region."""
        return self.x + self.width <= width and self.y + self.height <= height


class Tiles(BaseModel):
    """Overlapping parts of a large image that go through the network one by one, each of image_size pixels.

    The image is stretched to the *canvas* that the tiles cover. Where tiles overlap, each side of the middle comes from
    the tile that sees more around it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: PositiveInt
    columns: PositiveInt
    overlap: PositiveInt = Field(multiple_of=32, description="pixels that neighbouring tiles have in common")

    @classmethod
    def parse(cls, text: str, *, image_size: int) -> "Tiles":
        """Parse `RxC`, such as `1x8`. UsageError for any other text, and for fewer than 2 or more than 64 tiles."""
        rows, _, columns = text.lower().partition("x")
        if not (rows.isdecimal() and columns.isdecimal() and 2 <= int(rows) * int(columns) <= _MAX_TILES):
            raise UsageError(f"--tiles {text}: expected ROWSxCOLUMNS, such as 2x3, with 2 to {_MAX_TILES} tiles in all")
        if image_size % 32 or image_size < 96:
            raise UsageError(
                f"--tiles {text} with --image-size {image_size}: the side of a tile must be a multiple of 32 pixels, "
                "at least 96"
            )
        return cls(rows=int(rows), columns=int(columns), overlap=32 * round(image_size / 128))

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    def canvas(self, side: int) -> tuple[int, int]:
        """Height and width of the canvas for tiles of `side` pixels."""
        step = side - self.overlap
        return self.rows * step + self.overlap, self.columns * step + self.overlap

    def corners(self, side: int) -> list[tuple[int, int]]:
        """Top and left of each tile on the canvas, row by row."""
        step = side - self.overlap
        return [(row * step, column * step) for row in range(self.rows) for column in range(self.columns)]


class View(NamedTuple):
    """The part of a frame that the network sees, in pixels of the frame; not whole numbers in general."""

    left: float
    top: float
    width: float
    height: float


class Preprocessing(BaseModel):
    """uint8 RGB of any size -> region -> antialiased bilinear resize -> centre crop -> (x / 255 - mean) / std."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: PresetName = Field(description="preset that these values come from")
    image_size: PositiveInt = Field(description="side of the square input of the backbone, in pixels")
    resize: Literal["stretch", "short-side"] = Field(
        description="stretch: the whole frame becomes resize_to x resize_to; short-side: the shorter side becomes "
        "resize_to and the aspect ratio is kept"
    )
    resize_to: PositiveInt = Field(description="pixels; where it is larger than image_size, a centre crop follows")
    region: Region | None = Field(
        default=None, description="region of interest, cut out of the frame first; null: the whole frame"
    )
    tiles: Tiles | None = Field(default=None, description="of the patches; null: they are those of the whole view")
    ignore: IgnoreMask | None = Field(
        default=None, description="pixels of the input, or of the canvas, that are replaced by the mean; null: none"
    )
    margin: NonNegativeInt = Field(
        default=0,
        description="pixels of the mean around the input, or around the canvas; with patches half the distance between "
        "two of them, so that they lie in the middle, else 0",
    )
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @model_validator(mode="after")
    def _crop_fits(self) -> "Preprocessing":
        if self.resize_to < self.image_size:
            raise ValueError(f"resize_to {self.resize_to} is smaller than image_size {self.image_size}")
        if (self.tiles or self.ignore) and (self.resize != "stretch" or self.resize_to != self.image_size):
            raise ValueError("tiles and ignore need resize stretch to image_size")
        if self.tiles and (self.image_size % 32 or self.tiles.overlap * 2 > self.image_size):
            raise ValueError("tiles need an image_size that is a multiple of 32, and at least twice their overlap")
        if self.ignore and (self.ignore.height, self.ignore.width) != self.canvas:
            raise ValueError(f"ignore is not of the size {self.canvas} of the input")
        return self

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what the patches are cut from: the input of the network, or all of its tiles."""
        return self.tiles.canvas(self.image_size) if self.tiles else (self.image_size, self.image_size)

    def grid(self, stride: int) -> tuple[int, int]:
        """Rows and columns of the patches, which are `stride` pixels apart."""
        height, width = self.canvas
        return -(-height // stride), -(-width // stride)

    @property
    def input_side(self) -> int:
        """Side of the input of the backbone, with the margin."""
        return self.image_size + 2 * self.margin

    def kept_pixels(self, *, whole: bool) -> np.ndarray | None:
        """The pixels that are not ignored, bool: of the whole view, (image_size, image_size), or of the canvas."""
        if self.ignore is None:
            return None
        kept = ~self.ignore.ignored
        size = self.image_size
        if not whole or kept.shape == (size, size):
            return kept
        return cv2.resize(kept.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0

    def kept_patches(self, stride: int) -> np.ndarray | None:
        """The patches that count, bool (rows, columns): at least half of the pixels around a position are kept.

        `stride`: pixels between two patches; the first lies on pixel `margin`.
        """
        kept = self.kept_pixels(whole=False)
        if kept is None:
            return None
        share = cv2.blur(kept.astype(np.float32), (stride, stride), borderType=cv2.BORDER_REPLICATE)
        share = cv2.copyMakeBorder(share, 0, self.margin, 0, self.margin, cv2.BORDER_REPLICATE)
        return share[self.margin :: stride, self.margin :: stride] >= 0.5

    def ignored_by(self, mask: np.ndarray) -> np.ndarray:
        """Which pixels of the input, or of the canvas, a mask ignores: bool, of the size of the canvas.

        `mask`: uint8 (height, width, 3) of the size of the frames, which contain the region; white is ignored.
        """
        view = self.view(height=mask.shape[0], width=mask.shape[1])
        top, left = round(view.top), round(view.left)
        rows, columns = self.canvas
        seen = mask[top : round(view.top + view.height), left : round(view.left + view.width)]
        return ignored_pixels(seen, height=rows, width=columns)

    def view(self, *, height: int, width: int) -> View:
        """The part of a frame of this size that becomes the input of the backbone."""
        left, top = (self.region.x, self.region.y) if self.region else (0, 0)
        if self.region:
            height, width = self.region.height, self.region.width
        if self.resize == "stretch":
            resized_height = resized_width = self.resize_to
        else:
            short = min(height, width)
            resized_height, resized_width = height * self.resize_to // short, width * self.resize_to // short
        down, across = height / resized_height, width / resized_width  # pixels of the frame per pixel of the input
        return View(
            left=left + half_to_even(resized_width - self.image_size) * across,
            top=top + half_to_even(resized_height - self.image_size) * down,
            width=self.image_size * across,
            height=self.image_size * down,
        )


def half_to_even(excess: int) -> int:
    """round(excess / 2) with halves rounded to even, as in torchvision's CenterCrop, in integer arithmetic."""
    return (excess + (excess // 2) % 2) // 2


def preset(
    name: PresetName,
    *,
    image_size: int = 224,
    region: Region | None = None,
    tiles: Tiles | None = None,
    margin: int = 0,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Preprocessing:
    """Build the preprocessing of a named preset.

    `whole-frame` keeps the whole frame, so that no defect at the border is missed. `paper` is the evaluation of Reiss &
    Hoshen (arXiv 2106.03844): Resize 256 and CenterCrop 224, both scaled with `image_size`, which removes 23 % of a
    square image. `image_size` is in [32, 2048]; UsageError for others, and for `paper` with tiles.
    """
    if not 32 <= image_size <= 2048:
        raise UsageError(f"--image-size {image_size}: expected 32 to 2048 pixels")
    if name == "whole-frame":
        return Preprocessing(
            preset=name,
            image_size=image_size,
            resize="stretch",
            resize_to=image_size,
            region=region,
            tiles=tiles,
            margin=margin,
            mean=mean,
            std=std,
        )
    if tiles:
        raise UsageError("--tiles and --preset paper: tiles cover the whole frame; omit one of them")
    return Preprocessing(
        preset=name,
        image_size=image_size,
        resize="short-side",
        resize_to=image_size * 8 // 7,
        region=region,
        margin=margin,
        mean=mean,
        std=std,
    )
