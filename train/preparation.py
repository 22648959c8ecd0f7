"""Everything before the fine-tuning: the images, decoded and embedded once, and which of them are held out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric
from torch import Tensor

from msc_edge.errors import SourceError, UsageError
from msc_edge.groups import near_duplicate_files
from msc_edge.images import DecodePolicy
from msc_edge.kit.manifest import Weights
from msc_edge.progress import Report, silent
from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import architecture
from msc_edge.train.dataset import SIMILAR, NormalImage, find_normal_images, groups_of, hold_out, normal_folder
from msc_edge.train.devices import launch_fabric
from msc_edge.train.inputs import IgnoreMaskFile, preprocessing_of
from msc_edge.train.loading import load_images
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import TRAIN_ALL, TrainingOptions
from msc_edge.train.patches.taps import find_taps
from msc_edge.train.recipes import recipe_named
from msc_edge.train.run_folder import RECORD
from msc_edge.train.weights import pretrained_backbone

_JPEG_FACTOR = 2  # reduced JPEG files keep twice the input size of the network, so that the resize still smooths


@dataclass(frozen=True)
class Prepared:
    """The images and the network of a training before its first step."""

    folder: Path
    policy: DecodePolicy
    scores: ScoreKind
    backbone: Backbone
    weights: Weights
    network: EmbeddingNetwork
    images: list[NormalImage]
    """All images found, with their roles."""
    training_copies: list[Tensor]
    """One for each usable image, uint8 (3, h, w)."""
    embeddings: np.ndarray
    """Of the usable images under the pretrained weights, float32 (n, dim)."""

    @property
    def usable(self) -> list[NormalImage]:
        """The images that are used, in their order."""
        return [image for image in self.images if image.role in ("bank", "calibration")]


def check_images(
    normal: str | Path,
    options: TrainingOptions | None = None,
    *,
    report: Report = silent,
    unreadable: Callable[[str, str], None] | None = None,
) -> list[NormalImage]:
    """The images below `normal` as `train` with these options would use them: role, and group of images of one part.

    Takes as long as decoding and embedding each image once. See `train` for `unreadable` and the errors.
    """
    options = options or TrainingOptions()
    fabric = launch_fabric(options.accelerator, options.devices, options.dtype)
    return prepare(normal_folder(normal), options, fabric, report=report, unreadable=unreadable).images


def prepare(
    folder: Path,
    options: TrainingOptions,
    fabric: Fabric,
    *,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
) -> Prepared:
    """Find, decode and embed the images below `folder`, and hold some of them out. See `train` for the errors."""
    _check_name(folder)
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
    backbone, weights = pretrained_backbone(options.backbone, options.weights, stop_at=options.stop_at)
    # Freeze and split here, too: a wrong option must fail before all images are decoded.
    if options.frozen_up_to not in (None, TRAIN_ALL):
        backbone.freeze_up_to(options.frozen_up_to)
    network = EmbeddingNetwork(backbone, spec).to(fabric.device).eval()
    if scores != "image":
        find_taps(backbone)
    images = find_normal_images(folder, report=report)
    if options.group_by not in (None, SIMILAR):
        _hold_out(images, folder, options, None)
    images, training_copies, embeddings = load_images(
        images, folder, network, policy, mask=mask, report=report, unreadable=unreadable
    )
    images = _hold_out(images, folder, options, embeddings)
    return Prepared(folder, policy, scores, backbone, weights, network, images, training_copies, embeddings)


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


def _check_name(folder: Path) -> None:
    try:
        str(folder.resolve()).encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"--normal {folder}: the name is not valid text and cannot be stored in {RECORD}; rename the folder"
        ) from error
