"""The files of a run that belong to its patches: the head, and scores of calibration images and their changed copies.

The head is stored as safetensors: its state dict, and the taps as metadata.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from msc_edge.bank import Bank
from msc_edge.errors import KitError, writing
from msc_edge.files import written_whole
from msc_edge.scoring import Standard
from msc_edge.train.harmless import changed_copies, copied_images
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import MAP_SETTINGS, Images, fit_patch_head, outputs, outputs_in_turn, patch_scores
from msc_edge.train.patches.head import PatchHead, state_of_bank
from msc_edge.train.patches.substitutes import NO_GROUP, PatchRows, Substitutes
from msc_edge.train.patches.taps import Tap
from msc_edge.train.run_record import CALIBRATION, PATCH_CALIBRATION, PATCHES, STANDARD
from msc_edge.train.split import Split

_TAPS = "taps"


def write_patches(
    folder: Path,
    network: EmbeddingNetwork,
    bank: Bank,
    load: Callable[[Sequence[str]], Images],
    split: Split,
    *,
    rows: int,
) -> PatchHead:
    """Fit a patch head to the images of the bank and write it, with scores of the calibration images; see `OF_PATCHES`.

    Returns the head. Its bank has `rows` rows, or all patches if there are fewer. `bank`: of these images. `load`
    decodes the images with these names. Errors as for `fit_patch_head`, and OutputError.
    """
    in_bank, groups = [each.path for each in split.bank], split.groups
    left_out = split.bank_groups if split.in_turn else None
    head = fit_patch_head(network, lambda: load(in_bank), rows=rows, groups=left_out)

    def scored(images: Images, places: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not split.in_turn:
            return outputs(network, head, images)
        assert groups is not None
        return outputs_in_turn(network, head, images, [groups[place] for place in places])

    names = [each.path for each in split.calibration]
    scores = patch_scores(scored(load(names), range(len(names))), MAP_SETTINGS)
    places = copied_images(len(names))
    may_move = network.preprocess.spec.ignore is None
    copies = changed_copies(load([names[place] for place in places]), may_move=may_move)
    found = list(scored(copies, places.tolist()))
    image_scores = split.image_scores(bank, np.stack([embedding for embedding, _ in found]), places)
    with writing(folder):
        write_head(folder / PATCHES, head)
        np.save(folder / PATCH_CALIBRATION, scores)
        np.save(folder / STANDARD, np.stack([places, image_scores, patch_scores(found, MAP_SETTINGS)], axis=1))
    return head


def read_standard(folder: Path) -> Standard:
    """What the scores of a run are standardised by. KitError if the run is older than the file of it."""
    path = folder / STANDARD
    if not path.is_file():
        raise KitError(f"{path} is missing: an older msc-edge has made the run; train again")
    places, image, patch = np.load(path, allow_pickle=False).T
    own = (np.load(folder / name, allow_pickle=False) for name in (CALIBRATION, PATCH_CALIBRATION))
    return Standard(image, patch, places.astype(np.int64)).from_zero(*own)


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
        if "bank_groups" not in state:  # an older msc-edge held out once
            bank = PatchRows(state["bank"], torch.full((rows,), NO_GROUP))
            state |= state_of_bank(bank, Substitutes.none_of(bank))
        head = PatchHead(taps, dim=dim, rows=rows, substitutes=len(state["substitutes"]))
        head.load_state_dict(state)
    except Exception as error:  # safetensors and torch raise many types
        raise KitError(f"{path}: not a patch head ({error!s:.200}); train again") from error
    return head.eval()
