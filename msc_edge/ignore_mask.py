"""The ignore mask: which pixels of the network's input do not count, as data of a manifest."""

import base64
import binascii
import zlib
from functools import cached_property
from typing import Self

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

WHITE = 127
"""Grey levels above it are ignored."""
_MAX_TEXT = 1 << 22


class IgnoreMask(BaseModel):
    """A mask of the size of the network's input, or of its canvas with tiles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: PositiveInt
    width: PositiveInt
    bits: str = Field(
        max_length=_MAX_TEXT, description="one bit for each pixel, row by row, 1 is ignored; zlib, then base64"
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        ignored = self.ignored  # raises ValueError
        if ignored.all():
            raise ValueError("the mask ignores every pixel")
        return self

    @classmethod
    def of(cls, ignored: np.ndarray) -> Self:
        """The mask of an array, bool (height, width), True where pixels are ignored."""
        packed = zlib.compress(np.packbits(ignored).tobytes(), 9)
        return cls(height=ignored.shape[0], width=ignored.shape[1], bits=base64.b64encode(packed).decode())

    @cached_property
    def ignored(self) -> np.ndarray:
        """bool (height, width). ValueError if the bits are not a mask of this size."""
        count = self.height * self.width
        expected = -(-count // 8)
        try:
            # Never more than this mask needs: the data may be hostile.
            packed = zlib.decompressobj().decompress(base64.b64decode(self.bits, validate=True), expected + 1)
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"the bits of the mask are not readable: {error}") from error
        if len(packed) != expected:
            raise ValueError(f"the bits of the mask are not {self.width}x{self.height} pixels")
        return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).reshape(self.height, self.width) > 0


def ignored_pixels(mask: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Which pixels of an input of this size are ignored, bool (height, width).

    `mask`: uint8 (h, w, 3), the part that the network sees, white where it is ignored. A pixel of the input is ignored
    if more than half of it is.
    """
    white = (mask.max(axis=2) > WHITE).astype(np.float32)
    shrinks = mask.shape[0] >= height and mask.shape[1] >= width
    return cv2.resize(white, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR) > 0.5
