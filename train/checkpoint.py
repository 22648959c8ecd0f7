"""The checkpoint of a training loop: written whole, and taken up again only by the same training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from msc_edge.errors import KitError, UsageError, writing

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write `state`; a process that is killed meanwhile leaves the checkpoint before."""
    partial = path.with_suffix(".partial")
    with writing(path):
        fabric.save(partial, state)
        fabric.barrier()
        if fabric.is_global_zero:
            partial.replace(path)


def restore_checkpoint(
    fabric: Fabric, path: Path, state: dict[str, Any], *, same: Callable[[Mapping[str, Any]], bool]
) -> None:
    """Load a checkpoint, if there is one, into `state`. `same` says of what was stored whether it is this training's.

    Raises KitError for a damaged file, UsageError for one of another training.
    """
    if not path.is_file():
        return
    try:
        fits = same(fabric.load(path, weights_only=True))
        if fits:
            fabric.load(path, state, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KitError(f"{path}: cannot be read ({reason}); delete {path.parent} and train again") from error
    if not fits:
        raise UsageError(
            f"{path.parent}: was begun with other options, images or weights; give the same, "
            "or train again into another folder"
        )
