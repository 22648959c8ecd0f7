"""Taps: the feature maps of a backbone that patch embeddings are made of.

There is one tap for each stride, by default 8 and 16. It is the last feature map at that stride. In a network of
inverted residual blocks that is the expanded map inside the block that leaves the stride: it has four to six times the
channels of the map between two blocks, and separates defects better (docs/decisions.md, "Patch embeddings").
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msc_edge.errors import UsageError
from msc_edge.train.backbones.backbone import Backbone, strides

STRIDES = (8, 16)
MARGIN = STRIDES[-1] // 2  # of the preprocessing: pixels around the input, so that the patches lie in its middle


class Tap(NamedTuple):
    """One feature map of a backbone."""

    module: str
    """Name of the module whose output it is, such as `features.7.conv.0` or `layer2`."""
    stride: int
    channels: int
    first: int = 0
    """The pixel of the input that the first position is centred on, in both directions."""


def find_taps(backbone: Backbone, wanted: Sequence[int] = STRIDES) -> tuple[Tap, ...]:
    """The taps of a backbone, finest first. UsageError if it has no feature map at one of the strides."""
    chain = list(strides(backbone))
    taps: list[Tap] = []
    for stride in sorted(wanted):
        at_stride = [number for number, (_, reached, _) in enumerate(chain) if reached == stride]
        if not at_stride:
            raise UsageError(
                f"backbone {backbone.name}: has no feature map at 1/{stride} of the image, which patch embeddings "
                f"need; {'keep more stages, or ' if backbone.stop_at else ''}pass --scores image"
            )
        last = at_stride[-1]
        name, _, channels = chain[last]
        expansion = _expansion(backbone, chain[last + 1][0]) if last + 1 < len(chain) else None
        name, channels = expansion or (name, channels)
        taps.append(Tap(name, stride, channels, stride - 1 if backbone.architecture.same_padding else 0))
    return tuple(taps)


def _expansion(backbone: Backbone, block: str) -> tuple[str, int] | None:
    """Name and channels of the expanded map of an inverted residual block, None for any other module."""
    module = backbone.get_submodule(block)
    if isinstance(module, nn.Sequential):  # a stage of EfficientNet
        block, module = f"{block}.0", module[0]
    inner = next((name for kind, name in backbone.architecture.blocks.items() if isinstance(module, kind)), None)
    if inner is None:
        return None
    layers = list(module.get_submodule(inner).named_children())
    convolutions = [(place, found) for place, (_, layer) in enumerate(layers) if (found := _convolution(layer))]
    (_, first), (second, _) = convolutions[:2]
    # A block without expansion begins with its depthwise convolution. Otherwise norm and activation follow the first.
    return (f"{block}.{inner}.{layers[second - 1][0]}", first.out_channels) if first.kernel_size == (1, 1) else None


def _convolution(layer: nn.Module) -> nn.Conv2d | None:
    """The layer itself, or the first convolution within it."""
    return next((module for module in layer.modules() if isinstance(module, nn.Conv2d)), None)


class TappedBackbone(nn.Module):
    """A backbone that also returns its taps: (B, 3, h, w) -> features (B, dim), and a map (B, C, h', w') per tap.

    With tiles, each image is followed by its tiles (`Preprocess.with_tiles`): features are those of the images,
    (B, dim), and maps those of the tiles, (B * tiles, C, h', w'). The tiles leave the backbone behind the last tap.
    """

    def __init__(self, backbone: Backbone, taps: Sequence[Tap], *, tiles: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        self._tiles, self._last = tiles, taps[-1].module
        self._maps: list[Tensor] = [torch.empty(0)] * len(taps)
        for number, tap in enumerate(taps):
            backbone.get_submodule(tap.module).register_forward_hook(self._keep(number))

    def _keep(self, number: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._maps[number] = output

        return hook

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute features and maps."""
        if not self._tiles:
            features = self.backbone(images)
            return features, list(self._maps)
        features = images
        for name, module in self.backbone.chain():
            features = module(features)
            if f"{self._last}.".startswith(f"{name}."):
                features = features[:: 1 + self._tiles]
        of_tiles = [each.unflatten(0, (-1, 1 + self._tiles))[:, 1:].flatten(0, 1) for each in self._maps]
        return features.mean(dim=(2, 3)), of_tiles
