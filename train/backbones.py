"""Backbones: torchvision's classification networks without their heads, by name, whole or up to a stage.

Beside torchvision's own names there are narrower ones of the same families: `mobilenet_v2_x0.5` (every width times
0.5), `resnet50_x0.5` (the inner width of each bottleneck, as torchvision's `wide_resnet50_2` doubles it), and
`edge-small`, a MobileNetV2 with thinner blocks, whose weights come with this package.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from msc_edge.errors import UsageError
from msc_edge.train.named import OF_TRAIN, Named

# torchvision's families whose trunk is one of these chains of children. What follows is pooled over the image.
_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_FEATURES = ("features",)

_PROBE = 64  # pixels, to find out strides

_TORCHVISIONS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *(f"efficientnet_b{i}" for i in range(5)),
)

EDGE_SMALL = "edge-small"
# Expansion, channels, repeats and stride of each stage (Sandler et al., arXiv 1801.04381, table 2, has expansion 6
# throughout). The first stages take most of the time and can be thinned; the last ones hold most of the knowledge.
_EDGE_SMALL_STAGES = [
    [1, 16, 1, 1],
    [3, 24, 2, 2],
    [4, 32, 3, 2],
    [4, 64, 4, 2],
    [4, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]

BACKBONES = (EDGE_SMALL, *_TORCHVISIONS)
_NARROWER = re.compile(r"(mobilenet_v2|resnet50|resnet101|resnet152)_x(0\.[0-9]{1,3})")


class Backbone(nn.Module):
    """A network's trunk and a global average pool: normalised images (B, 3, h, w) -> features (B, dim).

    Its state dict has torchvision's own key names, so a torchvision checkpoint loads as it is.
    """

    def __init__(self, name: str, trunk: "OrderedDict[str, nn.Module]", stop_at: str | None) -> None:
        super().__init__()
        self.name = name
        self.stop_at = stop_at
        self._stages = list(trunk)
        for stage, module in trunk.items():
            self.add_module(stage, module)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        for stage in self._stages:
            images = getattr(self, stage)(images)
        return images.mean(dim=(2, 3))

    def chain(self) -> Iterator[tuple[str, nn.Module]]:
        """Each step from the image to the last map, in order, with its name: `conv1`, `layer1.0`, `features.3`."""
        for stage in self._stages:
            module = getattr(self, stage)
            if isinstance(module, nn.Sequential):
                yield from ((f"{stage}.{name}", step) for name, step in module.named_children())
            else:
                yield stage, module

    def freeze_up_to(self, stage: str) -> None:
        """Let nothing train from the input up to and with `stage`, given as for `build_backbone`."""
        for module in _chain_up_to(self, self._stages, stage, option="--freeze-to").values():
            module.requires_grad_(False)


def last_stage_at_stride(backbone: Backbone, stride: int) -> str | None:
    """The last stage whose map is at most `stride` times smaller than the image, as `layer2` or `features.6`.

    None where no stage beyond it follows.
    """
    last = None
    for name, reached, _ in strides(backbone):
        if reached > stride:
            return last
        last = name if name.startswith("features.") else name.partition(".")[0]
    return None


@torch.no_grad()
def strides(backbone: Backbone) -> Iterator[tuple[str, int, int]]:
    """Of each step of the chain: its name, how many times smaller its map is than the image, and its channels."""
    features = torch.zeros(1, 3, _PROBE, _PROBE, device=next(backbone.parameters()).device)
    for name, step in backbone.chain():
        features = step(features)
        yield name, _PROBE // features.shape[-1], features.shape[1]


def build_backbone(name: str, *, stop_at: str | None = None, named: Named = OF_TRAIN) -> Backbone:
    """Build an untrained backbone, in eval mode.

    `stop_at` is a stage such as `layer3` (ResNets) or `features.13` (the others), the last one to be kept.
    Raises UsageError for an unknown name or stage, and says which there are.
    """
    network = whole_network(name, named=named)
    stages = _FEATURES if hasattr(network, "features") else _RESNET
    trunk: OrderedDict[str, nn.Module] = OrderedDict((stage, getattr(network, stage)) for stage in stages)
    if stop_at is not None:
        holder = nn.Module()
        for stage, module in trunk.items():
            holder.add_module(stage, module)
        trunk = _chain_up_to(holder, list(trunk), stop_at, option=named.stop_at)
    return Backbone(name, trunk, stop_at).eval()


def is_finite(network: nn.Module) -> bool:
    """Whether all weights and statistics are numbers, and none of them infinite."""
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


def whole_network(name: str, *, named: Named = OF_TRAIN) -> nn.Module:
    """The untrained network, head and all, that a backbone is the trunk of. UsageError for an unknown name."""
    if name == EDGE_SMALL:
        return MobileNetV2(inverted_residual_setting=_EDGE_SMALL_STAGES)
    if name in _TORCHVISIONS:
        return torchvision.models.get_model(name, weights=None)
    if (narrower := _NARROWER.fullmatch(name)) and float(narrower[2]) >= 0.1:
        family, width = narrower[1], float(narrower[2])
        widths = {"width_mult": width} if family == "mobilenet_v2" else {"width_per_group": round(64 * width)}
        return torchvision.models.get_model(family, weights=None, **widths)
    raise UsageError(
        f"{named.backbone} {name}: not known here; choose one of {', '.join(BACKBONES)}, "
        "or a narrower one such as mobilenet_v2_x0.5 or resnet50_x0.5 (0.1 to 0.999)"
    )


def _chain_up_to(network: nn.Module, stages: list[str], last: str, *, option: str) -> "OrderedDict[str, nn.Module]":
    """The stages up to `last`; where `last` is `stage.i`, that stage is a Sequential cut after its child i."""
    stage, _, child = last.partition(".")
    inner = getattr(network, stage, None) if stage in stages else None
    cuttable = inner or getattr(network, stages[-1])
    children = [name for name, _ in cuttable.named_children()] if isinstance(cuttable, nn.Sequential) else []
    if inner is None or (child and child not in children):
        known = [name for name in stages if name.startswith("layer")] or [f"{stages[0]}.{i}" for i in children]
        raise UsageError(f"{option} {last}: there is no such stage; choose one of {', '.join(known)}")
    chain = OrderedDict((name, getattr(network, name)) for name in stages[: stages.index(stage)])
    if child:
        kept = children[: children.index(child) + 1]
        inner = nn.Sequential(OrderedDict((name, getattr(inner, name)) for name in kept))
    chain[stage] = inner
    return chain
