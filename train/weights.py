"""A backbone with pretrained weights: those of a file, or the default ones of its architecture."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from msc_edge.errors import UsageError
from msc_edge.kit.manifest import Weights
from msc_edge.train.backbones.architecture import Architecture
from msc_edge.train.backbones.backbone import Backbone, is_finite
from msc_edge.train.backbones.registry import architecture, build_backbone
from msc_edge.train.weight_files import Pretrained, weights_from_file


def pretrained_weights(backbone: str, file: Path | None) -> Pretrained:
    """The weights in `file`, or else the default ones of the backbone."""
    return weights_from_file(file) if file else architecture(backbone).pretrained()


def pretrained_backbone(name: str, file: Path | None, *, stop_at: str | None) -> tuple[Backbone, Weights]:
    """A backbone with its `pretrained_weights`, and their origin."""
    backbone = build_backbone(name, stop_at=stop_at)
    pretrained = pretrained_weights(name, file)
    load_into(backbone, pretrained.state, source=pretrained.origin.source)
    return backbone, pretrained.origin


def load_into(backbone: Backbone, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load a checkpoint of the whole network, or of more stages than the backbone has. `source` is for errors.

    Tensors of later stages and of the head are ignored. Raises UsageError if a tensor is missing or has another
    shape, if values are not finite, or if the checkpoint belongs to another architecture.
    """
    own = backbone.state_dict()
    state = {backbone.architecture.own_key(key): value for key, value in state.items()}
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    if missing := sorted(own.keys() - counters - state.keys()):
        raise UsageError(
            f"{source}: {len(missing)} of the {len(own)} tensors of {backbone.name} are missing, the first is "
            f"{missing[0]}; use a checkpoint of {backbone.name}, or stop at an earlier stage if the checkpoint is cut"
        )
    # A ResNet-34 has every tensor of a ResNet-18: unexpected tensors show the difference.
    stages = {key.partition(".")[0] for key in own}
    if unexpected := sorted(
        key for key in state.keys() - _keys_of(backbone.architecture) if key.partition(".")[0] in stages
    ):
        raise UsageError(
            f"{source}: {unexpected[0]} and {len(unexpected) - 1} more tensors do not exist in {backbone.name}; "
            f"use a checkpoint of {backbone.name}"
        )
    for key in own:
        if key in state and state[key].shape != own[key].shape:
            raise UsageError(
                f"{source}: {key} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)} for "
                f"{backbone.name}; use a checkpoint of {backbone.name}"
            )
    backbone.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
    if not is_finite(backbone):
        raise UsageError(f"{source}: contains values that are not finite; the file is damaged, copy it again")


def _keys_of(architecture: Architecture) -> set[str]:
    """The tensors of the whole trunk, by name."""
    with torch.device("meta"):
        return set(nn.ModuleDict(architecture.trunk()).state_dict())
