"""The inputs of distillation: teacher and student get the same strongly augmented crops.

"A consistent teacher" (Beyer et al. 2022, arXiv 2106.05237). The crops have several sizes, up to the image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msc_edge.train.seeds import generator_of, order_of_epoch
from msc_edge.train.views import ViewDraws, make_views

_SMALLEST_AREA = 0.08  # of a crop: torchvision's default for training on ImageNet
_BLENDED = 0.5  # share of the crops that are blended with another one (mixup)
_STRONGEST_BLEND = 0.5


@dataclass(frozen=True)
class StepDraws:
    """The random draws of one step: views, the weight of the other crop of the pair (B,), and the side in pixels."""

    views: ViewDraws
    blend: Tensor
    side: int


def sides_of(image_size: int) -> list[int]:
    """The possible sides of crops: about 4/7, 5/7, 6/7 and all of `image_size`, in multiples of 32 pixels.

    Small crops are fast, and a network that is accurate at several scales handles textures of several scales.
    """
    smaller = {max(32, round(image_size * share / 7 / 32) * 32) for share in (4, 5, 6)}
    return sorted({*(side for side in smaller if side < image_size), image_size})


def batch_of(step: int, *, images: int, batch: int, image_size: int, seed: int) -> tuple[list[int], StepDraws]:
    """The images of a step and its random draws: a function of the seed and the step only."""
    chosen = order_of_epoch(step, images=images, batch=batch, seed=seed)
    generator = generator_of(seed, 1, step)
    views = ViewDraws.draw(batch, generator, smallest_area=_SMALLEST_AREA)
    blended = torch.rand(batch, generator=generator) < _BLENDED
    blend = torch.where(blended, torch.rand(batch, generator=generator) * _STRONGEST_BLEND, 0.0)
    sides = sides_of(image_size)
    side = sides[int(torch.randint(len(sides), (1,), generator=generator))]
    return chosen, StepDraws(views, blend, side)


def make_crops(images: Sequence[Tensor], draws: StepDraws, part: slice, *, device: torch.device) -> Tensor:
    """The crops of a rank's part of the images, float32 (B, 3, side, side) in 0..255; B is even.

    A crop is blended with the other crop of its pair: 0 and 1, 2 and 3, and so on.
    """
    views = make_views(images, draws.views.take(part), size=draws.side, device=device)
    others = views.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return torch.lerp(views, others, draws.blend[part].to(device)[:, None, None, None])
