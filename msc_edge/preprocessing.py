"""The preprocessing of an image before the backbone, described as data.

A run and a kit record this description. The computation is one torch module (`msc_edge.train.preprocess`), which
training evaluates with, and the same computation as a graph in `model.onnx`.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from msc_edge.errors import UsageError

PresetName = Literal["whole-frame", "paper"]

# The statistics that torchvision's ImageNet weights expect, for RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @model_validator(mode="after")
    def _crop_fits(self) -> "Preprocessing":
        if self.resize_to < self.image_size:
            raise ValueError(f"resize_to {self.resize_to} is smaller than image_size {self.image_size}")
        return self

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


def preset(name: PresetName, *, image_size: int = 224, region: Region | None = None) -> Preprocessing:
    """Build the preprocessing of a named preset.

    `whole-frame` keeps the whole frame, so that no defect at the border is missed. `paper` is the evaluation of Reiss &
    Hoshen (arXiv 2106.03844): Resize 256 and CenterCrop 224, both scaled with `image_size`, which removes 23 % of a
    square image. `image_size` is in [32, 2048]; UsageError for others.
    """
    if not 32 <= image_size <= 2048:
        raise UsageError(f"--image-size {image_size}: expected 32 to 2048 pixels")
    if name == "whole-frame":
        return Preprocessing(preset=name, image_size=image_size, resize="stretch", resize_to=image_size, region=region)
    return Preprocessing(
        preset=name, image_size=image_size, resize="short-side", resize_to=image_size * 8 // 7, region=region
    )
