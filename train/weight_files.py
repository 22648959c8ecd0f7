"""Files of pretrained weights, read without running code that they may contain."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.files import kind_of, sha256_of
from msc_edge.kit.manifest import Weights


@dataclass(frozen=True)
class Pretrained:
    """A state dict and its origin."""

    state: Mapping[str, Tensor]
    origin: Weights


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
