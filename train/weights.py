"""Pretrained weights: from a file, or torchvision's own."""

import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib.resources import as_file, files
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from msc_edge import __version__
from msc_edge.errors import UsageError
from msc_edge.files import kind_of, sha256_of
from msc_edge.kit.manifest import Weights
from msc_edge.train.backbones import EDGE_SMALL, Backbone, is_finite, whole_network
from msc_edge.train.named import OF_TRAIN, Named


@dataclass(frozen=True)
class Pretrained:
    """A state dict and where it came from."""

    state: Mapping[str, Tensor]
    origin: Weights


def pretrained_weights(backbone: str, file: Path | None, *, named: Named = OF_TRAIN) -> Pretrained:
    """The weights from `file`, or else the backbone's own: bundled for `edge-small`, torchvision's for its names."""
    if file:
        return weights_from_file(file, named=named)
    return bundled_weights() if backbone == EDGE_SMALL else weights_from_torchvision(backbone, named=named)


def bundled_weights() -> Pretrained:
    """The weights of `edge-small`, which come with this package."""
    with as_file(files("msc_edge.train") / "bundled" / f"{EDGE_SMALL}.safetensors") as path:
        pretrained = weights_from_file(path)
    source, licence = (
        f"{EDGE_SMALL}, of msc-edge {__version__}",
        "Apache-2.0 (edge-small.md beside the weights)",
    )
    return replace(pretrained, origin=pretrained.origin.model_copy(update={"source": source, "licence": licence}))


def weights_from_file(path: Path, *, named: Named = OF_TRAIN) -> Pretrained:
    """Read a state dict from .safetensors, or from .pth/.pt without running any code that it may hold."""
    kind, reason = kind_of(path)
    if kind != "file":
        raise UsageError(f"{named.weights} {path}: {reason or 'it is a folder'}; check the path")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text, of many lines, advises to run what the file holds
        raise UsageError(
            f"{named.weights} {path}: holds more than tensors, or is damaged, and was not opened; "
            "give a .safetensors file, or a .pth file that holds tensors alone"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"{named.weights} {path}: cannot be read ({reason}); give a .safetensors file, "
            "or a .pth file that holds tensors alone"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UsageError(f"{named.weights} {path}: holds no state dict; give a file of name -> tensor")
    name = path.name.encode("utf-8", "backslashreplace").decode()  # a file name need not be valid text
    origin = Weights(source=name, sha256=sha256_of(path), licence="as of the file that was given")
    return Pretrained({key.removeprefix("module."): value for key, value in state.items()}, origin)


def weights_from_torchvision(name: str, *, named: Named = OF_TRAIN) -> Pretrained:
    """Torchvision's first ImageNet weights (IMAGENET1K_V1, those of the paper): from torch's cache, or fetched.

    The file's SHA-256 is checked, in the cache too, against the digits that torchvision writes in its name.
    """
    try:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    except ValueError as error:
        raise UsageError(
            f"{named.backbone} {name}: has no pretrained weights; distil some with: msc-edge distil --student {name}, "
            f"and pass them with {named.weights} FILE"
        ) from error
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    digits = file.stem.rpartition("-")[2]
    if kind_of(file)[0] != "file":
        _fetch(weights.url, file, digits, name, named)
    if not sha256_of(file).startswith(digits):
        raise UsageError(
            f"{named.backbone} {name}: {file} is not what torchvision published "
            f"(its SHA-256 does not begin with {digits}); delete it, "
            f"so that it is fetched again, or pass another file with {named.weights} FILE"
        )
    pretrained = weights_from_file(file)
    licence = "BSD-3-Clause (torchvision)"
    return replace(pretrained, origin=pretrained.origin.model_copy(update={"source": str(weights), "licence": licence}))


def _fetch(url: str, file: Path, digits: str, name: str, named: Named) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), digits, progress=sys.stderr.isatty())
    except (URLError, HTTPException, OSError, RuntimeError) as error:
        raise UsageError(
            f"{named.backbone} {name}: its pretrained weights could not be fetched ({error}). Where no network reaches "
            f"{url}, fetch that file elsewhere and pass it with {named.weights} FILE, "
            f"or use {named.backbone} {EDGE_SMALL}, whose weights are here already"
        ) from error


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
            f"{missing[0]}; is it the checkpoint of another network, "
            "or cut off at an earlier stage (then name that as the last)?"
        )
    # A ResNet-34 has every tensor of a ResNet-18: what is left over tells them apart.
    with torch.device("meta"):
        whole = whole_network(backbone.name).state_dict()
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
    if not is_finite(backbone):
        raise UsageError(f"{source}: holds values that are not finite; the file is damaged")
