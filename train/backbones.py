"""Backbones: torchvision's classification networks without their heads, by name, complete or cut after a stage.

Besides torchvision's names there are narrower networks of the same families: `mobilenet_v2_x0.5` (all widths times
0.5), `resnet50_x0.5` (the inner width of each bottleneck, as torchvision's `wide_resnet50_2` doubles it), and
`edge-small`, a MobileNetV2 with narrower blocks, whose weights are part of this package.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from msc_edge.errors import UsageError

# The children that form the trunk in torchvision's families. Global average pooling follows them.
_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_FEATURES = ("features",)

_PROBE = 64  # pixels: side of the image that strides are measured with

_TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *(f"efficientnet_b{i}" for i in range(5)),
)

EDGE_SMALL = "edge-small"
# Expansion, channels, repeats and stride of each stage (Sandler et al., arXiv 1801.04381, table 2, uses expansion 6
# throughout). The first stages take most of the time and can be narrower; the last ones hold most of the knowledge.
_EDGE_SMALL_STAGES = [
    [1, 16, 1, 1],
    [3, 24, 2, 2],
    [4, 32, 3, 2],
    [4, 64, 4, 2],
    [4, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]

BACKBONES = (EDGE_SMALL, *_TORCHVISION)
_NARROWER = re.compile(r"(mobilenet_v2|resnet50|resnet101|resnet152)_x(0\.[0-9]{1,3})")


class Backbone(nn.Module):
    """A trunk and a global average pool: normalised images (B, 3, h, w) -> features (B, dim).

    The state dict uses torchvision's key names, so a torchvision checkpoint loads without conversion.
    """

    def __init__(self, name: str, trunk: "OrderedDict[str, nn.Module]", stop_at: str | None) -> None:
        super().__init__()
        self.name = name
        self.stop_at = stop_at
        self._stages = list(trunk)
        for stage, module in trunk.items():
            self.add_module(stage, module)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features, (B, dim)."""
        for stage in self._stages:
            images = getattr(self, stage)(images)
        return images.mean(dim=(2, 3))

    def chain(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules from the image to the last feature map, with names: `conv1`, `layer1.0`, `features.3`."""
        for stage in self._stages:
            module = getattr(self, stage)
            if isinstance(module, nn.Sequential):
                yield from ((f"{stage}.{name}", child) for name, child in module.named_children())
            else:
                yield stage, module

    def freeze_up_to(self, stage: str) -> None:
        """Freeze the parameters from the input up to and including `stage`, named as for `build_backbone`."""
        for module in _chain_up_to(self, self._stages, stage).values():
            module.requires_grad_(False)


def last_stage_at_stride(backbone: Backbone, stride: int) -> str | None:
    """The last stage whose feature map is at most `stride` times smaller than the image: `layer2`, `features.6`.

    None if no stage follows it.
    """
    last = None
    for name, reached, _ in strides(backbone):
        if reached > stride:
            return last
        last = name if name.startswith("features.") else name.partition(".")[0]
    return None


@torch.no_grad()
def strides(backbone: Backbone) -> Iterator[tuple[str, int, int]]:
    """For each module of `Backbone.chain`: its name, the stride of its feature map, and its number of channels."""
    features = torch.zeros(1, 3, _PROBE, _PROBE, device=next(backbone.parameters()).device)
    for name, module in backbone.chain():
        features = module(features)
        yield name, _PROBE // features.shape[-1], features.shape[1]


def build_backbone(name: str, *, stop_at: str | None = None) -> Backbone:
    """Build an untrained backbone in eval mode.

    `stop_at` is the last stage to keep, such as `layer3` (ResNets) or `features.13` (the other families).
    Raises UsageError for an unknown name or stage; the message lists the known ones.
    """
    network = whole_network(name)
    stages = _FEATURES if hasattr(network, "features") else _RESNET
    trunk: OrderedDict[str, nn.Module] = OrderedDict((stage, getattr(network, stage)) for stage in stages)
    if stop_at is not None:
        holder = nn.Module()
        for stage, module in trunk.items():
            holder.add_module(stage, module)
        trunk = _chain_up_to(holder, list(trunk), stop_at)
    return Backbone(name, trunk, stop_at).eval()


def is_finite(network: nn.Module) -> bool:
    """Whether all weights and batch-norm statistics are finite numbers."""
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


def whole_network(name: str) -> nn.Module:
    """The untrained network, with its head, whose trunk is the backbone. Raises UsageError for an unknown name."""
    if name == EDGE_SMALL:
        return MobileNetV2(inverted_residual_setting=_EDGE_SMALL_STAGES)
    if name in _TORCHVISION:
        return torchvision.models.get_model(name, weights=None)
    if (narrower := _NARROWER.fullmatch(name)) and float(narrower[2]) >= 0.1:
        family, width = narrower[1], float(narrower[2])
        widths = {"width_mult": width} if family == "mobilenet_v2" else {"width_per_group": round(64 * width)}
        return torchvision.models.get_model(family, weights=None, **widths)
    raise UsageError(
        f"backbone {name}: unknown; choose one of {', '.join(BACKBONES)}, "
        "or a narrower network such as mobilenet_v2_x0.5 or resnet50_x0.5 (0.1 to 0.999)"
    )


def _chain_up_to(network: nn.Module, stages: list[str], last: str) -> "OrderedDict[str, nn.Module]":
    """The stages up to `last`. If `last` is `stage.i`, that stage is a Sequential that is cut after its child i."""
    stage, _, child = last.partition(".")
    inner = getattr(network, stage, None) if stage in stages else None
    cuttable = inner or getattr(network, stages[-1])
    children = [name for name, _ in cuttable.named_children()] if isinstance(cuttable, nn.Sequential) else []
    if inner is None or (child and child not in children):
        known = [name for name in stages if name.startswith("layer")] or [f"{stages[0]}.{i}" for i in children]
        raise UsageError(f"stage {last}: unknown; choose one of {', '.join(known)}")
    chain = OrderedDict((name, getattr(network, name)) for name in stages[: stages.index(stage)])
    if child:
        kept = children[: children.index(child) + 1]
        inner = nn.Sequential(OrderedDict((name, getattr(inner, name)) for name in kept))
    chain[stage] = inner
    return chain
