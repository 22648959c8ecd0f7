"""From a folder of normal images to a run folder: the whole of `msc-edge train`, for Python users."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from msc_edge import __version__
from msc_edge.bank import Bank
from msc_edge.errors import SourceError, UsageError, writing
from msc_edge.files import written_whole
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import PresetName, Region, preset
from msc_edge.progress import Report, silent
from msc_edge.train.backbones import EDGE_SMALL, Backbone, build_backbone, is_finite
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.collapse import mean_pairwise_cosine
from msc_edge.train.dataset import (
    FEWEST,
    NormalImage,
    Role,
    find_normals,
    fingerprint,
    hold_out,
    normal_folder,
    write_image_table,
)
from msc_edge.train.devices import launched_fabric
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import FineTuningOptions
from msc_edge.train.recipes import NOTHING, RecipeName
from msc_edge.train.run_folder import exclusive_run_folder
from msc_edge.train.run_record import (
    BACKBONE,
    BANK,
    CALIBRATION,
    IMAGE_TABLE,
    PACKAGES,
    RECORD,
    RunRecord,
    SelectionRecord,
    write_record,
)
from msc_edge.train.weights import load_into, pretrained_weights

NEIGHBOURS = 2
_JPEG_KEPT = 2  # times the size that the network sees: the resize behind it still has something to smooth
_LEAST_SPREAD_KEPT = 0.01  # of the normals' mean cosine distance; a sound training keeps most of it, or widens it


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FineTuningOptions):
    """What a user can choose."""

    backbone: str = EDGE_SMALL
    weights: Path | None = None
    stop_at: str | None = None
    recipe: RecipeName = "v2"
    preset: PresetName = "whole-frame"
    image_size: int = 224
    region: Region | None = None
    bit_depth: Literal[8, 10, 12, 14, 16] = 8
    reduced_jpeg: bool = False
    """Decode large JPEG files at a half, a quarter or an eighth, at least twice as large as the network sees them."""
    holdout: float = 0.2
    group_by: str | None = None
    """Images that must be held out together: `folder`, or a pattern with one group; see `hold_out`."""
    seed: int = 0
    devices: int = 1
    checkpoint_every: int = 20


def train(
    normal: str | Path,
    out: Path,
    options: TrainingOptions = TrainingOptions(),
    *,
    resume: bool = False,
    report: Report = silent,
    unreadable: Callable[[str, str], None] | None = None,
) -> RunRecord | None:
    """Train on the images below `normal` and write the run folder `out`.

    `unreadable` is told (name, reason) of each image that cannot be read; they are left out. Raises SourceError
    when too few images remain, UsageError for options that cannot be met and when `out` is taken. On several
    devices the processes beside the first return None.
    """
    folder = normal_folder(normal)
    _check_name(folder)
    with exclusive_run_folder(
        out, record=RECORD, then=f"export it with: msc-edge export {out} --out KIT", resume=resume
    ):
        return _train(folder, out, options, resume=resume, report=report, unreadable=unreadable)


def _train(
    folder: Path,
    out: Path,
    options: TrainingOptions,
    *,
    resume: bool,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
) -> RunRecord | None:
    fabric = launched_fabric(options.accelerator, options.devices, options.precision)
    report = report if fabric.is_global_zero else silent

    spec = preset(options.preset, image_size=options.image_size, region=options.region)
    if options.reduced_jpeg and options.region:
        raise UsageError("--reduced-jpeg and --roi: a region is in pixels of the whole image; leave one out")
    jpeg_keep = _JPEG_KEPT * spec.resize_to if options.reduced_jpeg else None
    policy = DecodePolicy(bit_depth=options.bit_depth, jpeg_keep=jpeg_keep)
    backbone = build_backbone(options.backbone, stop_at=options.stop_at)
    pretrained = pretrained_weights(options.backbone, options.weights)
    load_into(backbone, pretrained.state, source=pretrained.origin.source)
    if options.frozen_up_to not in (None, NOTHING):
        backbone.freeze_up_to(options.frozen_up_to)  # here, so that a wrong name is found before the images are read
    network = EmbeddingNetwork(backbone, spec).to(fabric.device).eval()

    images = find_normals(folder, report=report)
    if options.group_by is not None:
        hold_out(images, holdout=options.holdout, group_by=options.group_by)  # a wrong pattern is found before the work
    images, copies, initial = _open(images, folder, network, policy, report=report, unreadable=unreadable)
    images = hold_out(images, holdout=options.holdout, group_by=options.group_by)
    usable = [image for image in images if image.role in ("bank", "calibration")]
    in_bank = np.array([image.role == "bank" for image in usable])

    settings = options.settings(backbone, images=int(in_bank.sum()), recipe=options.recipe, seed=options.seed)
    embeddings = initial
    kept = None
    if settings.steps:
        bank_copies = [copy for copy, used in zip(copies, in_bank, strict=True) if used]
        kept = fine_tune(
            fabric,
            network,
            bank_copies,
            initial[in_bank],
            settings,
            folder=out,
            resume=resume,
            checkpoint_every=options.checkpoint_every,
            report=report,
        )
        if not fabric.is_global_zero:
            return None
        names = [image.path for image in usable]
        embeddings = network.embed_all(decoded(folder, names, policy, task="embedding the normals", report=report))
    _refuse_degenerate(backbone, embeddings)
    _refuse_collapsed(initial, embeddings)
    bank = Bank(embeddings[in_bank], k=NEIGHBOURS)
    scores = np.array([bank.score(embedding) for embedding in embeddings[~in_bank]])
    _write_arrays(out, backbone, bank, scores, images)
    record = write_record(
        out,
        RunRecord(
            msc_edge_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backbone=options.backbone,
            stop_at=options.stop_at,
            dim=embeddings.shape[1],
            k=NEIGHBOURS,
            decode=policy,
            preprocessing=spec,
            fine_tuning=settings,
            selection=kept and SelectionRecord(candidates=tuple(kept.candidates), selected_step=kept.step),
            holdout=options.holdout,
            group_by=options.group_by,
            weights=pretrained.origin,
            folder=str(folder.resolve()),
            data_fingerprint=fingerprint(usable),
            versions={name: importlib.metadata.version(name) for name in PACKAGES},
        ),
    )
    (out / CHECKPOINT).unlink(missing_ok=True)
    return record


def _refuse_degenerate(backbone: Backbone, embeddings: np.ndarray) -> None:
    if not is_finite(backbone):  # a ReLU6 hides an infinite weight from the embeddings
        raise UsageError("the weights are no longer finite; train again with a lower --learning-rate")
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-4):  # false for NaN too
        raise UsageError(
            "the network gives no direction to some images (all its features are zero, or not finite); "
            "train again with a lower --learning-rate, or with other weights"
        )


def _refuse_collapsed(before: np.ndarray, after: np.ndarray) -> None:
    spread_before, spread_after = (1 - mean_pairwise_cosine(torch.from_numpy(rows)) for rows in (before, after))
    if spread_after < _LEAST_SPREAD_KEPT * spread_before:
        raise UsageError(
            f"training has collapsed the embeddings: the mean cosine distance of the normals fell from "
            f"{spread_before:.2g} to {spread_after:.2g}, and a defect would fall with them; train again with a lower "
            "--learning-rate, or with --select synthetic"
        )


def _write_arrays(out: Path, backbone: Backbone, bank: Bank, scores: np.ndarray, images: list[NormalImage]) -> None:
    with writing(out):
        with written_whole(out / BACKBONE) as path:
            # Not save_file, which reports a full disk by an exception of its own.
            path.write_bytes(save({key: value.cpu().contiguous() for key, value in backbone.state_dict().items()}))
        np.save(out / BANK, bank.embeddings)
        np.save(out / CALIBRATION, scores)
        write_image_table(out / IMAGE_TABLE, images)


def _check_name(folder: Path) -> None:
    try:
        str(folder.resolve()).encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"--normal {folder}: its name is not valid text and cannot be written in {RECORD}; rename the folder"
        ) from error


def _open(
    images: list[NormalImage],
    folder: Path,
    network: EmbeddingNetwork,
    policy: DecodePolicy,
    *,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
) -> tuple[list[NormalImage], list[Tensor], np.ndarray]:
    """Decode every image once: the table, with the unreadable ones and copies marked, training copies, embeddings."""
    failed: dict[str, str] = {}
    seen: set[bytes] = set()
    again: set[str] = set()
    copies: list[Tensor] = []

    def note(name: str, reason: str) -> None:
        failed[name] = reason
        if unreadable:
            unreadable(name, reason)

    def decoded_once():
        names = [image.path for image in images if image.role == "bank"]
        for name, image in decoded(folder, names, policy, task="reading the normals", report=report, unreadable=note):
            pixels = sha256(f"{image.shape}".encode())
            pixels.update(image.data)
            if pixels.digest() in seen:  # another file of the same image, with other metadata or saved anew
                again.add(name)
                continue
            seen.add(pixels.digest())
            yield name, image  # first: embed_all refuses an image that the region does not fit
            copies.append(training_copy(image, network.preprocess.spec))

    embeddings = network.embed_all(decoded_once())
    if failed and len(copies) < FEWEST:
        name, reason = next(iter(failed.items()))
        raise SourceError(
            f"{len(failed)} of {len(failed) + len(copies)} images cannot be read, and at least {FEWEST} are needed; "
            f"the first: {name}: {reason}"
        )
    roles: dict[str, Role] = dict.fromkeys(failed, "unreadable")
    roles |= dict.fromkeys(again, "copy")
    marked = [replace(image, role=roles.get(image.path, image.role)) for image in images]
    return marked, copies, embeddings
