"""The checkpoint of a training loop: written atomically, restored only by a training with the same inputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from msc_edge.errors import KitError, UsageError, writing


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write `state`. If the process is killed while writing, the previous checkpoint stays."""
    partial = path.with_suffix(".partial")
    with writing(path):
        fabric.save(partial, state)
        fabric.barrier()
        if fabric.is_global_zero:
            partial.replace(path)


def steps_in(path: Path) -> int:
    """The number of steps in a checkpoint; 0 for a damaged one."""
    try:
        return int(torch.load(path, weights_only=True, mmap=True, map_location="cpu")["step"])
    except Exception:  # many types; a damaged checkpoint cannot be resumed
        return 0


def start_or_resume(
    fabric: Fabric, path: Path, state: dict[str, Any], *, resume: bool, same: Callable[[Mapping[str, Any]], bool]
) -> None:
    """Load the checkpoint into `state` to resume; otherwise write the first one, so that no other training resumes it.

    A training without a checkpoint, of an older version, starts again. `same` gets the stored state and returns whether
    it belongs to this training. Raises KitError for a damaged file, UsageError for the checkpoint of another training.
    """
    if not (resume and path.is_file()):
        save_checkpoint(fabric, path, state)
        return
    try:
        fits = same(fabric.load(path, weights_only=True))
        if fits:
            fabric.load(path, state, weights_only=True)
    except Exception as error:  # many types, whose messages recommend to load the file with its code
        raise KitError(f"{path}: damaged, or not a checkpoint; delete {path.parent} and train again") from error
    if not fits:
        raise UsageError(
            f"{path.parent}: was started with other options, images or weights; use the same ones, "
            "or train into another folder"
        )
