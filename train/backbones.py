"""Backbones: torchvision's classification networks without their heads, by name, whole or up to a stage."""

from collections import OrderedDict

import torchvision
from torch import Tensor, nn

from msc_edge.errors import UsageError

# torchvision's families whose trunk is one of these chains of children. What follows is pooled over the picture.
_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_FEATURES = ("features",)

_TRUNKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), _RESNET),
    **dict.fromkeys(("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d"), _RESNET),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"), _FEATURES),
    **dict.fromkeys((f"efficientnet_b{i}" for i in range(5)), _FEATURES),
}

BACKBONES = tuple(_TRUNKS)


class Backbone(nn.Module):
    """A network's trunk and a global average pool: normalised pictures (B, 3, h, w) -> features (B, dim).

    Its state dict has torchvision's own key names, so a torchvision checkpoint loads as it is.
    """

    def __init__(self, name: str, trunk: "OrderedDict[str, nn.Module]", stop_at: str | None) -> None:
        super().__init__()
        self.name = name
        self.stop_at = stop_at
        self._stages = list(trunk)
        for stage, module in trunk.items():
            self.add_module(stage, module)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        for stage in self._stages:
            pictures = getattr(self, stage)(pictures)
        return pictures.mean(dim=(2, 3))

    def freeze_up_to(self, stage: str) -> None:
        """Let nothing train from the input up to and with `stage`, given as for `build_backbone`."""
        for module in _chain_up_to(self, self._stages, stage, option="--freeze-to").values():
            module.requires_grad_(False)


def build_backbone(name: str, *, stop_at: str | None = None) -> Backbone:
    """Build an untrained backbone, in eval mode.

    `stop_at` is a stage such as `layer3` (ResNets) or `features.13` (the others), the last one to be kept.
    Raises UsageError for an unknown name or stage, and says which there are.
    """
    if name not in _TRUNKS:
        raise UsageError(f"--backbone {name}: not known here; choose one of {', '.join(BACKBONES)}")
    network = torchvision.models.get_model(name, weights=None)
    trunk = OrderedDict((stage, getattr(network, stage)) for stage in _TRUNKS[name])
    if stop_at is not None:
        holder = nn.Module()
        for stage, module in trunk.items():
            holder.add_module(stage, module)
        trunk = _chain_up_to(holder, list(trunk), stop_at, option="--stop-at")
    return Backbone(name, trunk, stop_at).eval()


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
