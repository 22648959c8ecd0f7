"""From a folder of normal images to a run folder: `msc-edge train` as a function."""

import importlib.metadata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from msc_edge import __version__
from msc_edge.bank import Bank
from msc_edge.errors import UsageError, writing
from msc_edge.files import written_whole
from msc_edge.progress import Report, silent
from msc_edge.train.announcement import announcement
from msc_edge.train.backbones.backbone import Backbone, is_finite
from msc_edge.train.checkpoint import steps_in
from msc_edge.train.collapse import mean_pairwise_cosine
from msc_edge.train.curves import write_curves
from msc_edge.train.dataset import (
    SIMILAR,
    NormalImage,
    fingerprint,
    normal_folder,
    write_image_table,
)
from msc_edge.train.devices import launch_fabric
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.loading import decoded
from msc_edge.train.metrics import StepMetrics, read_metrics
from msc_edge.train.options import TrainingOptions
from msc_edge.train.patches.fit import MAP_SETTINGS
from msc_edge.train.patches.run_files import write_patches
from msc_edge.train.preparation import prepare
from msc_edge.train.run_folder import CHECKPOINT, CURVES, METRICS, RECORD, VIEWS, exclusive_run_folder
from msc_edge.train.run_record import (
    BACKBONE,
    BANK,
    CALIBRATION,
    IMAGE_TABLE,
    OF_PATCHES,
    PACKAGES,
    RunRecord,
    SelectionRecord,
    write_record,
)
from msc_edge.train.settings import fine_tuning
from msc_edge.train.split import fine_tuning_suits, split_of
from msc_edge.train.view_sheet import write_view_sheet

_MIN_SPREAD_RATIO = 0.01  # of the mean cosine distance before training; a good training keeps or increases it


def train(
    normal: str | Path,
    out: Path,
    options: TrainingOptions | None = None,
    *,
    resume: bool = False,
    report: Report = silent,
    unreadable: Callable[[str, str], None] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> RunRecord | None:
    """Train on the images below `normal` and write the run folder `out`.

    `unreadable` is called with the name and the reason of each image that cannot be read; these images are skipped.
    `note` is called with lines about the images and the settings, before the fine-tuning: see `announcement`.
    Raises SourceError for too few images, UsageError for invalid options and if `out` is in use. With several
    devices, only the first process returns the record; the others return None.
    """
    folder = normal_folder(normal)
    with exclusive_run_folder(
        out,
        record=RECORD,
        hint=f"export it with: msc-edge export {out} --out KIT",
        resume=resume,
        steps_in=steps_in,
        files=(BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, *OF_PATCHES),
    ):
        return _train(
            folder, out, options or TrainingOptions(), resume=resume, report=report, unreadable=unreadable, note=note
        )


def _train(
    folder: Path,
    out: Path,
    options: TrainingOptions,
    *,
    resume: bool,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
    note: Callable[[str], None],
) -> RunRecord | None:
    fabric = launch_fabric(options.accelerator, options.devices, options.dtype)
    report = report if fabric.is_global_zero else silent
    prepared = prepare(folder, options, fabric, report=report, unreadable=unreadable)
    backbone, network, usable = prepared.backbone, prepared.network, prepared.usable
    policy, scores, initial = prepared.policy, prepared.scores, prepared.embeddings
    in_bank = np.array([image.role == "bank" for image in usable])

    count, recipe, seed = int(in_bank.sum()), options.recipe, options.seed
    suits = fine_tuning_suits(usable, scores=scores)
    settings = fine_tuning(
        options, backbone=backbone, images=count, recipe=recipe, scores=scores, seed=seed, suits=suits
    )
    if fabric.is_global_zero:
        kind = fabric.device.type
        for line in announcement(
            prepared.images,
            settings,
            scores=scores,
            backbone=options.backbone,
            device=kind,
            holdout=options.holdout,
            asked=options.steps is not None,
            found=options.group_by == SIMILAR,
        ):
            note(line)
    embeddings = initial
    best = None
    if settings.steps:
        copies = [copy for copy, used in zip(prepared.training_copies, in_bank, strict=True) if used]
        in_training = [image.path for image in usable if image.role == "bank"]

        def show_views(step: int) -> None:
            # A training that starts again from its first step does not keep the views of an earlier one.
            if fabric.is_global_zero and (step == 1 or not (out / VIEWS).exists()):
                write_view_sheet(out / VIEWS, copies, in_training, settings, size=options.image_size)

        best = fine_tune(
            fabric,
            network,
            copies,
            initial[in_bank],
            settings,
            folder=out,
            resume=resume,
            checkpoint_every=options.checkpoint_every,
            on_step=show_views,
            report=report,
        )
        if not fabric.is_global_zero:
            return None
        write_curves(out / CURVES, read_metrics(out / METRICS, StepMetrics), best)
        names = [image.path for image in usable]
        embeddings = network.embed_all(decoded(folder, names, policy, task="embedding images", report=report))
    _check_finite(backbone, embeddings)
    _check_spread(initial, embeddings)
    trained = settings.steps > 0 and (best is None or best.step > 0)
    split = split_of(usable, trained=trained, scores=scores)
    rows = {image.path: embedding for image, embedding in zip(usable, embeddings, strict=True)}
    bank = Bank(np.stack([rows[image.path] for image in split.bank]))
    own = np.stack([rows[image.path] for image in split.calibration])
    image_scores = split.image_scores(bank, own, range(len(own)))
    _write_files(out, backbone, bank, image_scores, prepared.images)
    head = None
    if scores != "image":
        head = write_patches(
            out,
            network,
            bank,
            lambda names: decoded(folder, names, policy, task="comparing patches", report=report),
            split,
            rows=options.patch_rows,
        )
    record = write_record(
        out,
        RunRecord(
            msc_edge_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backbone=options.backbone,
            stop_at=options.stop_at,
            dim=embeddings.shape[1],
            k=bank.k,
            decode=policy,
            preprocessing=network.preprocess.spec,
            fine_tuning=settings,
            scores=scores,
            map=None if scores == "image" else MAP_SETTINGS,
            patch_rows=head and len(head.bank),
            taps=head and tuple(tap.module for tap in head.taps),
            selection=best and SelectionRecord(candidates=tuple(best.candidates), selected_step=best.step),
            in_turn=split.in_turn,
            holdout=options.holdout,
            group_by=options.group_by,
            weights=prepared.weights,
            folder=str(folder.resolve()),
            data_fingerprint=fingerprint(usable),
            versions={name: importlib.metadata.version(name) for name in PACKAGES},
        ),
    )
    (out / CHECKPOINT).unlink(missing_ok=True)
    return record


def _check_finite(backbone: Backbone, embeddings: np.ndarray) -> None:
    if not is_finite(backbone):  # ReLU6 can hide an infinite weight from the embeddings
        raise UsageError("the weights are no longer finite; train again with a lower --learning-rate")
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-4):  # also False for NaN
        raise UsageError(
            "the features of some images are all zero or not finite, so they have no embedding; "
            "train again with a lower --learning-rate, or with other weights"
        )


def _check_spread(before: np.ndarray, after: np.ndarray) -> None:
    spread_before, spread_after = (1 - mean_pairwise_cosine(torch.from_numpy(rows)) for rows in (before, after))
    if spread_after < _MIN_SPREAD_RATIO * spread_before:
        raise UsageError(
            f"the embeddings have collapsed: the mean cosine distance between normal images fell from "
            f"{spread_before:.2g} to {spread_after:.2g}, and defects are no longer detectable; train again with a "
            "lower --learning-rate, or with --select synthetic"
        )


def _write_files(out: Path, backbone: Backbone, bank: Bank, scores: np.ndarray, images: list[NormalImage]) -> None:
    with writing(out):
        with written_whole(out / BACKBONE) as path:
            # Avoid save_file: it does not raise OSError for a full disk.
            path.write_bytes(save({key: value.cpu().contiguous() for key, value in backbone.state_dict().items()}))
        np.save(out / BANK, bank.embeddings)
        np.save(out / CALIBRATION, scores)
        write_image_table(out / IMAGE_TABLE, images)
