"""The file of a patch head in a run folder: its state dict as safetensors, with the taps as metadata."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from msc_edge.errors import KitError
from msc_edge.files import written_whole
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.taps import Tap

_TAPS = "taps"


def write_head(path: Path, head: PatchHead) -> None:
    """Write a patch head."""
    taps = json.dumps([tap._asdict() for tap in head.taps])
    with written_whole(path) as partial:
        # Avoid save_file: it does not raise OSError for a full disk.
        state = {key: value.cpu().contiguous() for key, value in head.state_dict().items()}
        partial.write_bytes(save(state, {_TAPS: taps}))


def read_head(path: Path) -> PatchHead:
    """Read a patch head. KitError if the file is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            taps = [Tap(**tap) for tap in json.loads(file.metadata()[_TAPS])]
        rows, dim = state["bank"].shape
        head = PatchHead(taps, dim=dim, rows=rows)
        head.load_state_dict(state)
    except Exception as error:  # safetensors and torch raise many types
        raise KitError(f"{path}: not a patch head ({error!s:.200}); train again") from error
    return head.eval()
