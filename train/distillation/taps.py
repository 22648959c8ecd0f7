"""The intermediate feature maps at which student and teacher are compared: their last maps at strides 8 and 16."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from msc_edge.train.backbones.backbone import Backbone, strides
from msc_edge.train.fast_convolutions import FastConvolutions

_STRIDES = (8, 16)


@dataclass(frozen=True)
class Tap:
    """Two modules, by their places in `Backbone.chain`, whose feature maps have the same size."""

    student: int
    teacher: int
    student_channels: int
    teacher_channels: int


def taps_of(student: Backbone, teacher: Backbone) -> list[Tap]:
    """The pairs of feature maps to compare; none if a network has no map at these strides."""
    ours, theirs = _last_at_stride(student), _last_at_stride(teacher)
    both = [stride for stride in _STRIDES if stride in ours and stride in theirs]
    return [Tap(ours[stride][0], theirs[stride][0], ours[stride][1], theirs[stride][1]) for stride in both]


def _last_at_stride(backbone: Backbone) -> dict[int, tuple[int, int]]:
    """stride -> (place in the chain, channels)."""
    return {stride: (place, channels) for place, (_, stride, channels) in enumerate(strides(backbone))}


def features_and_maps(backbone: Backbone, pixels: Tensor, places: Iterable[int]) -> tuple[Tensor, list[Tensor]]:
    """Pooled features, float32 (B, dim), and the feature maps at `places` (ascending) of the chain."""
    wanted = set(places)
    maps = []
    for place, (_, module) in enumerate(backbone.chain()):
        pixels = module(pixels)
        if place in wanted:
            maps.append(pixels)
    return pixels.float().mean(dim=(2, 3)), maps


class StudentWithAdapters(nn.Module):
    """A backbone and, for each tap whose channels differ, a 1x1 convolution to the teacher's channels.

    The convolutions exist in training only.
    """

    def __init__(self, backbone: Backbone, taps: Iterable[Tap]) -> None:
        super().__init__()
        self.backbone = backbone
        self.places = [tap.student for tap in taps]
        self.adapters = nn.ModuleList(
            nn.Identity()
            if tap.student_channels == tap.teacher_channels
            else nn.Conv2d(tap.student_channels, tap.teacher_channels, 1)
            for tap in taps
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Normalised images (B, 3, h, w) -> features (B, dim), and a feature map for each tap."""
        with FastConvolutions(self.backbone):
            features, maps = features_and_maps(self.backbone, pixels, self.places)
        return features, [adapter(features_map) for adapter, features_map in zip(self.adapters, maps, strict=True)]
