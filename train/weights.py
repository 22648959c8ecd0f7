"""Pretrained weights: from a file, from this package, or from torchvision."""

import functools
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib.resources import as_file, files
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from msc_edge import __version__
from msc_edge.errors import UsageError
from msc_edge.files import kind_of, sha256_of
from msc_edge.kit.manifest import Weights
from msc_edge.train.backbones import EDGE_SMALL, Backbone, build_backbone, is_finite, whole_network


@dataclass(frozen=True)
class Pretrained:
    """A state dict and its origin."""

    state: Mapping[str, Tensor]
    origin: Weights


def pretrained_weights(backbone: str, file: Path | None) -> Pretrained:
    """The weights in `file`, or else the default ones: bundled for `edge-small`, torchvision's for its names."""
    if file:
        return weights_from_file(file)
    return bundled_weights() if backbone == EDGE_SMALL else weights_from_torchvision(backbone)


def pretrained_backbone(name: str, file: Path | None, *, stop_at: str | None) -> tuple[Backbone, Weights]:
    """A backbone with its `pretrained_weights`, and their origin."""
    backbone = build_backbone(name, stop_at=stop_at)
    pretrained = pretrained_weights(name, file)
    load_into(backbone, pretrained.state, source=pretrained.origin.source)
    return backbone, pretrained.origin


def bundled_weights() -> Pretrained:
    """The weights of `edge-small`, which are part of this package."""
    with as_file(files("msc_edge.train.bundled") / f"{EDGE_SMALL}.safetensors") as path:
        pretrained = weights_from_file(path)
    source, licence = (
        f"{EDGE_SMALL}, of msc-edge {__version__}",
        "Apache-2.0 (edge-small.md beside the weights)",
    )
    return replace(pretrained, origin=pretrained.origin.model_copy(update={"source": source, "licence": licence}))


def weights_from_file(path: Path) -> Pretrained:
    """Read a state dict from .safetensors, or from .pth/.pt without running code that the file may contain.

    Raises UsageError if the file is missing, damaged, or contains anything but tensors with names.
    """
    kind, reason = kind_of(path)
    if kind != "file":
        raise UsageError(f"weights {path}: {reason or 'it is a folder'}; check the path")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"weights {path}: cannot be read ({reason}); copy the file again") from error
    except Exception as error:  # many types, whose messages recommend to load the file with its code
        raise UsageError(
            f"weights {path}: not opened, because the file contains more than tensors, or is damaged; "
            "use a .safetensors file, or a .pth file that contains only tensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UsageError(f"weights {path}: contains no state dict; use a file that maps names to tensors")
    name = path.name.encode("utf-8", "backslashreplace").decode()  # a file name may be invalid text
    origin = Weights(source=name, sha256=sha256_of(path), licence="that of the given file")
    return Pretrained({key.removeprefix("module."): value for key, value in state.items()}, origin)


def weights_from_torchvision(name: str) -> Pretrained:
    """Torchvision's first ImageNet weights (IMAGENET1K_V1, used in the paper), from torch's cache or downloaded.

    The SHA-256 of the file, also of a cached one, is checked against the digits in the file name. Raises UsageError
    if there are no such weights, the download fails, or the hash differs.
    """
    try:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    except ValueError as error:
        raise UsageError(
            f"backbone {name}: torchvision has no pretrained weights for it; distil some with: "
            f"msc-edge distil --student {name}, then pass the file as its weights"
        ) from error
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    digits = file.stem.rpartition("-")[2]
    if kind_of(file)[0] != "file":
        _download(weights.url, file, digits, name)
    if not sha256_of(file).startswith(digits):
        raise UsageError(
            f"backbone {name}: {file} is not the file that torchvision published (its SHA-256 does not start with "
            f"{digits}); delete it to download it again, or pass another file with weights"
        )
    pretrained = weights_from_file(file)
    licence = "BSD-3-Clause (torchvision)"
    return replace(pretrained, origin=pretrained.origin.model_copy(update={"source": str(weights), "licence": licence}))


def _download(url: str, file: Path, digits: str, name: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), digits, progress=sys.stderr.isatty())
    except (URLError, HTTPException, OSError, RuntimeError) as error:
        raise UsageError(
            f"backbone {name}: its pretrained weights cannot be downloaded ({error}); download {url} on another "
            f"machine and pass the file as its weights, or use {EDGE_SMALL}, whose weights are part of msc-edge"
        ) from error


def load_into(backbone: Backbone, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load a checkpoint of the whole network, or of more stages than the backbone has. `source` is for errors.

    Tensors of later stages and of the head are ignored. Raises UsageError if a tensor is missing or has another
    shape, if values are not finite, or if the checkpoint belongs to another architecture.
    """
    own = backbone.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    if missing := sorted(own.keys() - counters - state.keys()):
        raise UsageError(
            f"{source}: {len(missing)} of the {len(own)} tensors of {backbone.name} are missing, the first is "
            f"{missing[0]}; use a checkpoint of {backbone.name}, or stop at an earlier stage if the checkpoint is cut"
        )
    # A ResNet-34 has every tensor of a ResNet-18: unexpected tensors show the difference.
    stages = {key.partition(".")[0] for key in own}
    if unexpected := sorted(key for key in state.keys() - _keys_of(backbone.name) if key.partition(".")[0] in stages):
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


@functools.cache
def _keys_of(name: str) -> frozenset[str]:
    """The tensors of the whole network, by name."""
    with torch.device("meta"):
        return frozenset(whole_network(name).state_dict())
