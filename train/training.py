"""From a folder of normal images to a run folder: `msc-edge train` as a function."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save

from msc_edge import __version__
from msc_edge.bank import Bank
from msc_edge.errors import SourceError, UsageError, writing
from msc_edge.files import written_whole
from msc_edge.groups import near_duplicate_files
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import Region, Tiles
from msc_edge.progress import Report, silent
from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones.backbone import Backbone, is_finite
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.backbones.registry import architecture
from msc_edge.train.collapse import mean_pairwise_cosine
from msc_edge.train.curves import write_curves
from msc_edge.train.dataset import (
    SIMILAR,
    NormalImage,
    find_normal_images,
    fingerprint,
    groups_of,
    hold_out,
    normal_folder,
    write_image_table,
)
from msc_edge.train.devices import launch_fabric
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.inputs import IgnoreMaskFile, preprocessing_of
from msc_edge.train.loading import decoded, load_images
from msc_edge.train.metrics import StepMetrics, read_metrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import TRAIN_ALL, FineTuningOptions
from msc_edge.train.patches.fit import MAP_SETTINGS, ROWS
from msc_edge.train.patches.run_files import write_patches
from msc_edge.train.patches.taps import find_taps
from msc_edge.train.recipes import recipe_named
from msc_edge.train.run_folder import CHECKPOINT, CURVES, METRICS, VIEWS, exclusive_run_folder
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
from msc_edge.train.settings import fine_tuning
from msc_edge.train.view_sheet import write_view_sheet
from msc_edge.train.weights import pretrained_backbone

_JPEG_FACTOR = 2  # reduced JPEG files keep twice the input size of the network, so that the resize still smooths
_MIN_SPREAD_RATIO = 0.01  # of the mean cosine distance before training; a good training keeps or increases it


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FineTuningOptions):
    """The options of `train`."""

    backbone: str = EDGE_SMALL
    weights: Path | None = None
    """A file with pretrained weights; None: the default weights of the backbone."""
    stop_at: str | None = None
    """The last stage of the backbone to keep; None: all."""
    recipe: str = "v2"
    image_size: int = 224
    region: Region | None = None
    """The region of interest; None: the whole image."""
    tiles: Tiles | None = None
    """Tiles of the patches; None: the patches are those of the whole view."""
    ignore_mask: Path | None = None
    """An image of the size of the training images, white where they are not inspected."""
    bit_depth: Literal[8, 10, 12, 14, 16] = 8
    reduced_jpeg: bool = False
    """Decode large JPEG files at 1/2, 1/4 or 1/8 of their size, at least twice the input size of the network."""
    holdout: float = 0.2
    """Share of the images that are held out as calibration images."""
    group_by: str | None = SIMILAR
    """Which images must be held out together: `similar`, those that show the same part by their embeddings, names and
    times, see `near_duplicate_files`; `folder`, or a pattern with one group, see `groups_of`; None: each by itself."""
    scores: ScoreKind | None = None
    """What the score of a kit is made of; None: both, and with the preset `paper` the image score."""
    patch_rows: int = ROWS
    """Rows of the patch bank."""
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

    `unreadable` is called with the name and the reason of each image that cannot be read; these images are skipped.
    Raises SourceError for too few images, UsageError for invalid options and if `out` is in use. With several
    devices, only the first process returns the record; the others return None.
    """
    folder = normal_folder(normal)
    _check_name(folder)
    with exclusive_run_folder(
        out, record=RECORD, hint=f"export it with: msc-edge export {out} --out KIT", resume=resume
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
    fabric = launch_fabric(options.accelerator, options.devices, options.dtype)
    report = report if fabric.is_global_zero else silent

    if recipe_named(options.recipe).is_baseline:
        raise UsageError(f"recipe {options.recipe}: a baseline, for the benchmark only; choose v1 or v2")
    scores = options.scores or ("image" if options.preset == "paper" else "both")
    mask = IgnoreMaskFile(options.ignore_mask) if options.ignore_mask else None
    spec = preprocessing_of(
        options.preset,
        image_size=options.image_size,
        region=options.region,
        tiles=options.tiles,
        ignore_mask=mask,
        scores=scores,
        architecture=architecture(options.backbone),
    )
    if options.reduced_jpeg and options.region:
        raise UsageError("--reduced-jpeg and --roi: a region is in pixels of the full image; omit one of them")
    jpeg_keep = _JPEG_FACTOR * spec.resize_to if options.reduced_jpeg else None
    policy = DecodePolicy(bit_depth=options.bit_depth, jpeg_keep=jpeg_keep)
    backbone, origin = pretrained_backbone(options.backbone, options.weights, stop_at=options.stop_at)
    # Freeze and split here, too: a wrong option must fail before all images are decoded.
    if options.frozen_up_to not in (None, TRAIN_ALL):
        backbone.freeze_up_to(options.frozen_up_to)
    network = EmbeddingNetwork(backbone, spec).to(fabric.device).eval()
    if scores != "image":
        find_taps(backbone)

    images = find_normal_images(folder, report=report)
    if options.group_by not in (None, SIMILAR):
        _hold_out(images, folder, options, None)
    images, training_copies, initial = load_images(
        images, folder, network, policy, mask=mask, report=report, unreadable=unreadable
    )
    images = _hold_out(images, folder, options, initial)
    usable = [image for image in images if image.role in ("bank", "calibration")]
    in_bank = np.array([image.role == "bank" for image in usable])

    count, recipe, seed = int(in_bank.sum()), options.recipe, options.seed
    settings = fine_tuning(options, backbone=backbone, images=count, recipe=recipe, scores=scores, seed=seed)
    embeddings = initial
    best = None
    if settings.steps:
        copies = [copy for copy, used in zip(training_copies, in_bank, strict=True) if used]
        in_training = [image.path for image in usable if image.role == "bank"]

        def show_views(_step: int) -> None:
            # After the first step: a training that fails before it leaves an empty folder, which can be used again.
            if fabric.is_global_zero and not (out / VIEWS).exists():
                write_view_sheet(out / VIEWS, copies, in_training, settings, size=spec.image_size)

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
    bank = Bank(embeddings[in_bank])
    image_scores = np.array([bank.score(embedding) for embedding in embeddings[~in_bank]])
    _write_files(out, backbone, bank, image_scores, images)
    head = None
    if scores != "image":
        head = write_patches(
            out,
            network,
            lambda names: decoded(folder, names, policy, task="comparing patches", report=report),
            usable,
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
            preprocessing=spec,
            fine_tuning=settings,
            scores=scores,
            map=None if scores == "image" else MAP_SETTINGS,
            patch_rows=head and len(head.bank),
            taps=head and tuple(tap.module for tap in head.taps),
            selection=best and SelectionRecord(candidates=tuple(best.candidates), selected_step=best.step),
            holdout=options.holdout,
            group_by=options.group_by,
            weights=origin,
            folder=str(folder.resolve()),
            data_fingerprint=fingerprint(usable),
            versions={name: importlib.metadata.version(name) for name in PACKAGES},
        ),
    )
    (out / CHECKPOINT).unlink(missing_ok=True)
    return record


def _hold_out(
    images: list[NormalImage], folder: Path, options: TrainingOptions, embeddings: np.ndarray | None
) -> list[NormalImage]:
    """Hold out the groups of `--group-by`. `embeddings` of the usable images, float32 (n, dim), show similar images."""
    usable = [image.path for image in images if image.role in ("bank", "calibration")]
    if options.group_by == SIMILAR:
        assert embeddings is not None
        groups = near_duplicate_files(embeddings, folder, usable)
    else:
        groups = groups_of(usable, options.group_by)
    return hold_out(images, holdout=options.holdout, groups=groups.tolist(), group_by=options.group_by)


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


def _check_name(folder: Path) -> None:
    try:
        str(folder.resolve()).encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"--normal {folder}: the name is not valid text and cannot be stored in {RECORD}; rename the folder"
        ) from error
