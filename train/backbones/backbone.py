"""A backbone: the trunk of an architecture, complete or cut after a stage, and global average pooling."""

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from msc_edge.errors import UsageError
from msc_edge.train.backbones.architecture import Architecture, Trunk

_PROBE = 64  # pixels: side of the image that strides are measured with


class Backbone(nn.Module):
    """A trunk and a global average pool: normalised images (B, 3, h, w) -> features (B, dim).

    The state dict of a network of torchvision has torchvision's keys.
    """

    def __init__(self, architecture: Architecture, *, stop_at: str | None = None) -> None:
        """An untrained backbone in eval mode.

        `stop_at`: the last stage to keep, such as `layer3` or `features.13`. UsageError for an unknown one; the message
        lists those that exist.
        """
        super().__init__()
        self.architecture = architecture
        self.stop_at = stop_at
        trunk = architecture.trunk()
        if stop_at is not None:
            trunk = _up_to(trunk, stop_at)
        self._stages = list(trunk)
        for stage, module in trunk.items():
            self.add_module(stage, module)
        self.eval()

    @property
    def name(self) -> str:
        """The name of the architecture."""
        return self.architecture.name

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
        """Freeze the parameters from the input up to and including `stage`, named as `stop_at`."""
        trunk = OrderedDict((name, self.get_submodule(name)) for name in self._stages)
        for module in _up_to(trunk, stage).values():
            module.requires_grad_(False)


def last_stage_at_stride(backbone: Backbone, stride: int) -> str | None:
    """The last stage whose feature map is at most `stride` times smaller than the image: `layer2`, `features.6`.

    None if no stage follows it.
    """
    last = None
    for name, reached, _ in strides(backbone):
        if reached > stride:
            return last
        parent, _, child = name.partition(".")
        last = parent if _children(backbone.get_submodule(parent))[-1:] == [child] else name
    return None


@torch.no_grad()
def strides(backbone: Backbone) -> Iterator[tuple[str, int, int]]:
    """For each module of `Backbone.chain`: its name, the stride of its feature map, and its number of channels."""
    features = torch.zeros(1, 3, _PROBE, _PROBE, device=next(backbone.parameters()).device)
    for name, module in backbone.chain():
        features = module(features)
        yield name, _PROBE // features.shape[-1], features.shape[1]


def is_finite(network: nn.Module) -> bool:
    """Whether all weights and batch-norm statistics are finite numbers."""
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


def _up_to(trunk: Trunk, last: str) -> Trunk:
    """The stages up to `last`: the name of a stage, or `stage.child`, where a Sequential is cut after that child."""
    stage, _, child = last.partition(".")
    children = _children(trunk[stage]) if stage in trunk else []
    if stage not in trunk or (child and child not in children):
        cuttable = [name for name, module in trunk.items() if _children(module)]
        known = cuttable if len(cuttable) > 1 else [f"{name}.{i}" for name in cuttable for i in _children(trunk[name])]
        raise UsageError(f"stage {last}: unknown; choose one of {', '.join(known or trunk)}")
    stages = list(trunk)
    kept = OrderedDict((name, trunk[name]) for name in stages[: stages.index(stage) + 1])
    if child:
        inner = children[: children.index(child) + 1]
        kept[stage] = nn.Sequential(OrderedDict((name, trunk[stage].get_submodule(name)) for name in inner))
    return kept


def _children(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()] if isinstance(module, nn.Sequential) else []
