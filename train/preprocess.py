"""Preprocessing as a torch module: training evaluates with it, and `model.onnx` reproduces it."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.preprocessing import Preprocessing, half_to_even


class Preprocess(nn.Module):
    """uint8 (B, height, width, 3) RGB of any size -> float32 (B, 3, input_side, input_side), normalised.

    `msc_edge.export.preprocessing_graph` is the same function in ONNX.
    """

    mean: Tensor
    std: Tensor
    kept_whole: Tensor | None
    kept_canvas: Tensor | None

    def __init__(self, spec: Preprocessing) -> None:
        super().__init__()
        self.spec = spec
        # Pixels stay in 0..255 here: one subtraction and one division are enough.
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)
        for name, whole in (("kept_whole", True), ("kept_canvas", False)):
            self.register_buffer(name, _factors(spec.kept_pixels(whole=whole)), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Cut out the region of interest, resize, crop, normalise, replace ignored pixels by the mean, add a margin."""
        return self._finished(self._crop(self._resize(self._seen(image))), self.kept_whole)

    def with_tiles(self, image: Tensor) -> Tensor:
        """The whole view of each image, followed by its tiles: (B * (1 + tiles), 3, input_side, input_side)."""
        whole = self(image)
        tiles, side = self.spec.tiles, self.spec.input_side
        if tiles is None:
            return whole
        resized = F.interpolate(self._seen(image), size=self.spec.canvas, **_BILINEAR)
        canvas = self._finished(resized, self.kept_canvas)
        corners = tiles.corners(self.spec.image_size)
        cut = [canvas[:, :, top : top + side, left : left + side] for top, left in corners]
        return torch.stack([whole, *cut], dim=1).flatten(0, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(x - mean) / std for float pixels in 0..255, (B, 3, h, w)."""
        return (pixels - self.mean) / self.std

    def _seen(self, image: Tensor) -> Tensor:
        if region := self.spec.region:
            image = image[:, region.y : region.y + region.height, region.x : region.x + region.width]
        return image.permute(0, 3, 1, 2).to(torch.float32)

    def _finished(self, pixels: Tensor, kept: Tensor | None) -> Tensor:
        normalised = self.normalise(pixels)
        return F.pad(normalised if kept is None else normalised * kept, [self.spec.margin] * 4)

    def _resize(self, pixels: Tensor) -> Tensor:
        to = self.spec.resize_to
        if self.spec.resize == "stretch":
            size = [to, to]
        else:
            height, width = pixels.shape[2], pixels.shape[3]
            short = min(height, width)
            size = [height * to // short, width * to // short]
        return F.interpolate(pixels, size=size, **_BILINEAR)

    def _crop(self, pixels: Tensor) -> Tensor:
        side = self.spec.image_size
        if self.spec.resize_to == side and self.spec.resize == "stretch":
            return pixels
        top, left = half_to_even(pixels.shape[2] - side), half_to_even(pixels.shape[3] - side)
        return pixels[:, :, top : top + side, left : left + side]


_BILINEAR = {"mode": "bilinear", "antialias": True, "align_corners": False}


def _factors(kept: np.ndarray | None) -> Tensor | None:
    return None if kept is None else torch.from_numpy(kept.astype(np.float32))[None, None]
