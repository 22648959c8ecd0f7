"""Augmented views of images: the transforms of Reiss & Hoshen (arXiv 2106.03844, appendix), a batch at a time.

RandomResizedCrop, ColorJitter(0.4, 0.4, 0.4, 0.1) with probability 0.8, grey with 0.2, Gaussian blur of sigma
U(0.1, 2) with 0.5, horizontal flip with 0.5. Each image has its own draws; only the order of the four colour changes
is drawn once per batch. All draws come from one generator, for the whole batch, so views are a function of (images,
seed, step): a resumed run and a run on several devices use the same views.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow; torchvision uses 0.2989 for tensors
_TRIES = 10  # candidates for a crop, as in torchvision
_RATIOS = (3 / 4, 4 / 3)
_BLUR_RADIUS = 6  # three times the largest sigma


@dataclass(frozen=True)
class ViewDraws:
    """The random draws for one view of each image of a batch. All tensors have length B.

    `area` and `log_ratio` are (B, tries): the first crop that fits into the image is used.
    """

    area: Tensor
    log_ratio: Tensor
    corner: Tensor
    flip: Tensor
    jitter: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    grey: Tensor
    sigma: Tensor
    order: tuple[int, ...]

    @classmethod
    def draw(cls, batch: int, generator: torch.Generator, *, smallest_area: float = 0.2) -> Self:
        """Draw for `batch` images. The tensors are on the CPU."""

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.rand(batch, *shape, generator=generator) * (high - low) + low

        def chance(probability: float) -> Tensor:
            return torch.rand(batch, generator=generator) < probability

        return cls(
            area=uniform(smallest_area, 1, _TRIES),
            log_ratio=uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1]), _TRIES),
            corner=torch.rand(batch, 2, generator=generator),
            flip=chance(0.5),
            jitter=chance(0.8),
            brightness=uniform(0.6, 1.4),
            contrast=uniform(0.6, 1.4),
            saturation=uniform(0.6, 1.4),
            hue=uniform(-0.1, 0.1),
            grey=chance(0.2),
            sigma=torch.where(chance(0.5), uniform(0.1, 2), 0.0),
            order=tuple(torch.randperm(4, generator=generator).tolist()),
        )

    def take(self, part: slice) -> Self:
        """The draws for a part of the images."""
        fields = {name: value[part] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return type(self)(**fields, order=self.order)


def make_views(images: Sequence[Tensor], draws: ViewDraws, *, size: int, device: torch.device) -> Tensor:
    """Make one view of each image, float32 (B, 3, size, size) in 0..255 on `device`.

    `images`: uint8 (3, h, w) RGB of any sizes. Images that are on `device` are cropped there. Crops made on a CPU are
    rounded to whole grey levels, crops made on a GPU are not. The function does not synchronise with `device`.
    """
    crops = torch.stack([_crop(image, draws, i, size) for i, image in enumerate(images)])
    views = crops.to(device, torch.float32, non_blocking=True) / 255
    draws = _on_device(draws, device)
    views = torch.where(_column(draws.flip), views.flip(-1), views)
    jittered = views
    for change in draws.order:
        jittered = _COLOUR_CHANGES[change](jittered, draws)
    views = torch.where(_column(draws.jitter), jittered, views)
    views = torch.where(_column(draws.grey), to_grey(views).expand_as(views), views)
    return blur(views, draws.sigma) * 255


def _crop(image: Tensor, draws: ViewDraws, i: int, size: int) -> Tensor:
    top, left, height, width = crop_box(
        image.shape[1:], draws.area[i].tolist(), draws.log_ratio[i].tolist(), draws.corner[i].tolist()
    )
    cut = image[None, :, top : top + height, left : left + width]
    if cut.device.type != "cpu":  # only the CPU resizes uint8
        cut = cut.float()
    return F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def crop_box(
    image: Sequence[int], areas: Sequence[float], log_ratios: Sequence[float], corner: Sequence[float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the first crop that fits into the image, as in torchvision's RandomResizedCrop.

    `image`: height and width. `areas`: shares of the image's area. `log_ratios`: logarithms of width / height.
    `corner`: two numbers in [0, 1), the position of the crop. If no crop fits, the result is the largest one with an
    allowed ratio, in the middle.
    """
    rows, columns = image
    for area, log_ratio in zip(areas, log_ratios, strict=True):
        ratio = math.exp(log_ratio)
        height = round(math.sqrt(area * rows * columns / ratio))
        width = round(math.sqrt(area * rows * columns * ratio))
        if 0 < height <= rows and 0 < width <= columns:
            return int(corner[0] * (rows - height + 1)), int(corner[1] * (columns - width + 1)), height, width
    height = min(rows, max(1, round(columns / _RATIOS[0])))
    width = min(columns, max(1, round(rows * _RATIOS[1])))
    return (rows - height) // 2, (columns - width) // 2, height, width


def to_grey(views: Tensor) -> Tensor:
    """Convert RGB (B, 3, h, w) to grey (B, 1, h, w)."""
    red, green, blue = _GREY  # numbers: a tensor would have to be copied to the device each time
    return red * views[:, 0:1] + green * views[:, 1:2] + blue * views[:, 2:3]


def adjust_brightness(views: Tensor, factor: Tensor) -> Tensor:
    """Scale images (B, 3, h, w) in [0, 1] by `factor`, (B,)."""
    return (views * _column(factor)).clamp(0, 1)


def adjust_contrast(views: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its mean grey by `factor`, (B,); 1 keeps the image."""
    mean = to_grey(views).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, views, _column(factor)).clamp(0, 1)


def adjust_saturation(views: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its grey version by `factor`, (B,); 1 keeps the image."""
    return torch.lerp(to_grey(views).expand_as(views), views, _column(factor)).clamp(0, 1)


def adjust_hue(views: Tensor, turn: Tensor) -> Tensor:
    """Shift the hue of the HSV colour by `turn`, (B,), in whole turns.

    With value v, chroma c and hue h in [0, 6), each channel of HSV is  v - c * clamp(min(k, 4 - k), 0, 1)  where
    k = (n + h) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    value, brightest = views.max(dim=1, keepdim=True)
    chroma = value - views.amin(dim=1, keepdim=True)
    red, green, blue = views.unbind(dim=1)
    by_brightest = torch.stack([green - blue, blue - red, red - green], dim=1)
    steps = by_brightest.gather(1, brightest) / chroma.clamp_min(1e-12) + 2 * brightest
    hue = steps + 6 * _column(turn)
    k = torch.cat([(n + hue) % 6 for n in (5, 3, 1)], dim=1)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(views: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a sigma for each image, (B,), in pixels; 0 keeps the image. Edges are reflected."""
    batch, channels = views.shape[:2]
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=views.device, dtype=views.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    planes = F.pad(views, (_BLUR_RADIUS,) * 4, mode="reflect").flatten(0, 1)[None]
    groups = batch * channels
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=groups)
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=groups)
    return planes[0].unflatten(0, (batch, channels))


_COLOUR_CHANGES = (
    lambda views, draws: adjust_brightness(views, draws.brightness),
    lambda views, draws: adjust_contrast(views, draws.contrast),
    lambda views, draws: adjust_saturation(views, draws.saturation),
    lambda views, draws: adjust_hue(views, draws.hue),
)


def _column(per_image: Tensor) -> Tensor:
    return per_image.view(-1, 1, 1, 1)


def _on_device(draws: ViewDraws, device: torch.device) -> ViewDraws:
    fields = {
        name: value.to(device, non_blocking=True) for name, value in vars(draws).items() if isinstance(value, Tensor)
    }
    return ViewDraws(**fields, order=draws.order)
