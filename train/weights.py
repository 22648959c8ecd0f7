"""Pretrained weights: from a file, or torchvision's own."""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.files import sha256_of
from msc_edge.manifest import Weights
from msc_edge.train.backbones import Backbone


@dataclass(frozen=True)
class Pretrained:
    """A state dict and where it came from."""

    state: Mapping[str, Tensor]
    origin: Weights


def weights_from_file(path: Path) -> Pretrained:
    """Read a state dict from .safetensors, or from .pth/.pt without running any code that it may hold."""
    if not path.is_file():
        raise UsageError(f"--weights {path}: no such file; check the path")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text, of many lines, advises to run what the file holds
        raise UsageError(
            f"--weights {path}: holds more than tensors, or is damaged, and was not opened; give a .safetensors file, "
            "or a .pth file that holds tensors alone"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"--weights {path}: cannot be read ({reason}); give a .safetensors file, "
            "or a .pth file that holds tensors alone"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UsageError(f"--weights {path}: holds no state dict; give a file of name -> tensor")
    name = path.name.encode("utf-8", "backslashreplace").decode()  # a file name need not be valid text
    origin = Weights(source=name, sha256=sha256_of(path), licence="as of the file that was given")
    return Pretrained({key.removeprefix("module."): value for key, value in state.items()}, origin)


def weights_from_torchvision(name: str) -> Pretrained:
    """Fetch torchvision's first ImageNet weights (IMAGENET1K_V1, those of the paper), or take them from its cache."""
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UsageError(
            f"--backbone {name}: its pretrained weights could not be fetched ({error}). Where no network reaches "
            f"{weights.url}, fetch that file elsewhere and pass it with --weights FILE"
        ) from error
    # torchvision's file names end in the first digits of the SHA-256; the whole digest is of what was loaded.
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].numpy().tobytes())
    origin = Weights(source=str(weights), sha256=digest.hexdigest(), licence="BSD-3-Clause (torchvision)")
    return Pretrained(state, origin)


def load_into(backbone: Backbone, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load every tensor of the backbone from a checkpoint of the whole network, or of a larger part of it.

    Tensors of later stages and of the head are left aside. UsageError when one is missing, has another shape, or
    when the checkpoint is that of another architecture.
    """
    own = backbone.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    if missing := sorted(own.keys() - counters - state.keys()):
        raise UsageError(
            f"{source}: {len(missing)} of {len(own)} tensors that {backbone.name} needs are not there, the first is "
            f"{missing[0]}; is it the checkpoint of another network, or cut off earlier (then pass --stop-at)?"
        )
    # A ResNet-34 has every tensor of a ResNet-18: what is left over tells them apart.
    with torch.device("meta"):
        whole = torchvision.models.get_model(backbone.name, weights=None).state_dict()
    stages = {key.partition(".")[0] for key in own}
    if strangers := sorted(key for key in state.keys() - whole.keys() if key.partition(".")[0] in stages):
        raise UsageError(
            f"{source}: {strangers[0]} and {len(strangers) - 1} more tensors have no place in {backbone.name}; "
            "is it the checkpoint of another network?"
        )
    for key in own:
        if key in state and state[key].shape != own[key].shape:
            raise UsageError(
                f"{source}: {key} has shape {tuple(state[key].shape)}, and {backbone.name} needs "
                f"{tuple(own[key].shape)}; is it the checkpoint of another network?"
            )
    backbone.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
    if not all(value.isfinite().all() for value in backbone.state_dict().values()):
        raise UsageError(f"{source}: holds values that are not finite; the file is damaged")
