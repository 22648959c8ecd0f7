"""From a run folder to a kit: the whole of `msc-edge export`, for Python users."""

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from msc_edge import __version__
from msc_edge.bank import Bank
from msc_edge.calibration import REJECT_RATE, WARN_RATE, Calibration, Rates
from msc_edge.drawing import thumbnail
from msc_edge.errors import KitError, UsageError
from msc_edge.export.entry import ScorePlan
from msc_edge.export.fused.proof import prove
from msc_edge.export.fused.single_file import fuse
from msc_edge.export.fused.writing import Targets, with_negatives
from msc_edge.export.models import Parts, Precisions, write_models
from msc_edge.export.parity import TorchScorer, check_parity, compare, parity_images, unit_of
from msc_edge.export.run_images import RunImages
from msc_edge.files import folder_written_whole
from msc_edge.kit.layout import (
    MANIFEST,
    NORMAL_IMAGES,
    THUMBNAILS,
    thumbnail_file,
)
from msc_edge.kit.manifest import Manifest, Network, NormalImages, Precision, Provenance, kit_name
from msc_edge.kit.model_entry import Model, Parity
from msc_edge.kit.opening import Kit
from msc_edge.kit.quantization import Target
from msc_edge.kit.writing import refuse_zip, seal, write_manifest
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.scoring import ScoreKind, Scoring
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.dataset import NormalImage, read_image_table
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.run_files import read_head, read_standard
from msc_edge.train.patches.substitutes import NO_GROUP
from msc_edge.train.run_record import (
    BACKBONE,
    CALIBRATION,
    IMAGE_TABLE,
    PATCH_CALIBRATION,
    PATCHES,
    RunRecord,
    read_record,
)
from msc_edge.train.run_record import BANK as RUN_BANK
from msc_edge.train.split import Split
from msc_edge.train.weights import load_into

REGION_RATE = 0.01
_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "hnswlib", "numpy", "opencv-python")


def export(
    run: Path,
    out: Path,
    *,
    normal: Path | None = None,
    name: str | None = None,
    warn_rate: float = WARN_RATE,
    reject_rate: float = REJECT_RATE,
    region_rate: float | None = None,
    scores: ScoreKind | None = None,
    precision: Precisions = "both",
    target: Target = "x86-vnni",
    thumbnails: bool = True,
    fused: Targets | None = None,
    overwrite: bool = False,
    report: Report = silent,
    note: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write the kit folder `out` from the run folder `run`, and check its scores against those of training.

    `normal`: the folder of the training images, if they were moved. `name`: the kit's name, up to 63 letters, digits,
    `.`, `_` and `-`; by default it is made from the name of the folder `out`, without `.kit`. `warn_rate`,
    `reject_rate`: the target false-alarm rates of the two limits, in (0, 1). `region_rate`: the target share of normal
    images with any region of the anomaly map. `scores`: what the score is made of, if not what the run says; a run that
    compares whole images only has no patches. `precision`: every kit has the fp32 model; `both` adds the int8 model if
    it passes its gates, and otherwise calls `note` with the reason; it is the default model if its loss is small, see
    `accuracy_loss`. `int8` requires the int8 model and makes it the default model. `target`: the processors that the
    int8 model is made for, see `Quantization`. `thumbnails`: store a small JPEG of each normal image. `fused`: also
    write the default model of the kit as one ONNX file, or a page with it, see `fuse_kit`; the proof scores the images
    of the parity check. `overwrite`: replace an existing kit.

    Raises UsageError for rates and names that are not valid, for an `out` that cannot be replaced, and if int8 is
    required and fails its gates; KitError if the run is incomplete or the parity check fails; SourceError if an image
    is missing or was changed since the training. After an error `out` is unchanged.
    """
    refuse_zip(out)
    if overwrite:
        _refuse_no_kit(out)
    name = checked_name(name) or kit_name(out.resolve().name.removesuffix(".kit"))
    record = read_record(run)
    table = read_image_table(run / IMAGE_TABLE)
    backbone = build_backbone(record.backbone, stop_at=record.stop_at)
    load_into(backbone, load_file(run / BACKBONE), source=str(run / BACKBONE))
    network = EmbeddingNetwork(backbone, record.preprocessing).eval()
    head, plan = _plan_of(run, record, scores)
    if head is None and region_rate is not None:
        raise UsageError(
            "--region-rate: the kit compares whole images only and has no heatmap; omit one of the options"
        )
    regions = REGION_RATE if region_rate is None else region_rate
    if not 0 < regions < 1:
        raise UsageError(f"--region-rate {regions:g}: expected a number between 0 and 1, for example {REGION_RATE:g}")
    rates = Rates(warn_rate, reject_rate, None if head is None else regions)
    split = Split.of(table, in_turn=record.in_turn, trained=record.trained)
    torch_scoring, torch_scores = _in_torch(run, plan, split.groups)
    torch_limits = torch_scores.limits(warn_rate=warn_rate, reject_rate=reject_rate)
    bank = Bank(np.load(run / RUN_BANK, allow_pickle=False), k=record.k)

    with folder_written_whole(out, replace=overwrite) as kit:
        images = RunImages.find(record, table, moved=normal, report=report)
        parts = Parts(network, bank, head, plan, images, rates, seed=record.fine_tuning.seed)

        def manifest_of(models: dict[Precision, Model], *, default: Precision, normal_images: int) -> Manifest:
            return Manifest(
                format_version=2,
                name=name,
                msc_edge_version=__version__,
                decode=record.decode,
                preprocessing=record.preprocessing,
                network=Network(backbone=record.backbone, stop_at=record.stop_at),
                normal_images=NormalImages(file=NORMAL_IMAGES, count=normal_images),
                models=models,
                default_model=default,
                provenance=_provenance(record, table, head),
                files={},
            )

        if thumbnails:
            _write_thumbnails(kit, images.decoded(images.in_bank, "thumbnails"))
        models, default = write_models(kit, parts, manifest_of, precision=precision, target=target, note=note)
        manifest = seal(kit, manifest_of(models, default=default, normal_images=len(images.in_bank)))
        detector = Detector.load(kit, precision="fp32", backend="onnxruntime")
        chosen = parity_images(images.held_out, images.in_bank)
        reference = TorchScorer(network, bank, head, torch_scoring)
        comparisons = compare(reference, detector, images.decoded(chosen, "parity"), count=len(chosen))
        parity = check_parity(comparisons, torch_limits, detector.limits, unit=unit_of(torch_scoring))
        manifest = write_manifest(kit, _with_parity(manifest, parity))
        if fused:
            with Kit.open(kit) as opened:
                single = fuse(opened)
            prove(single, with_negatives(images.decoded(chosen, "single file")))
            fused.write(single)
        return manifest


def _plan_of(run: Path, record: RunRecord, scores: ScoreKind | None) -> tuple[PatchHead | None, ScorePlan]:
    """The patch head, and what the score is made of."""
    kind = scores or record.scores
    if kind != "image" and record.map is None:
        raise UsageError(f"--scores {kind}: {run} compares whole images only; train with --scores {kind}")
    head = None if kind == "image" else read_head(run / PATCHES)
    if head and record.in_turn and int(head.bank_groups.min()) == NO_GROUP:
        raise KitError(f"{run / PATCHES}: the group of each patch is missing; train again")
    return head, ScorePlan.of(kind, record.map, head, may_move=record.preprocessing.ignore is None)


def _in_torch(run: Path, plan: ScorePlan, groups: Sequence[int] | None) -> tuple[Scoring, Calibration]:
    """The run's own scoring and scores of the calibration images."""
    image_scores = np.load(run / CALIBRATION, allow_pickle=False)
    patch_scores = np.load(run / PATCH_CALIBRATION, allow_pickle=False) if plan.map else None
    standard = read_standard(run) if plan.kind == "both" else None
    return plan.fitted(standard), plan.calibration(image_scores, patch_scores, standard, groups)


def _refuse_no_kit(out: Path) -> None:
    """UsageError if --overwrite would replace anything but a kit or an empty folder."""
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out}: not a kit; --overwrite replaces only kits: choose another name")


def checked_name(name: str | None) -> str | None:
    """The name of a kit as it was given. UsageError for one that no kit may have."""
    if name is not None and kit_name(name) != name:
        raise UsageError(
            f"--name {name!r}: a kit name has up to 63 letters a-z, digits, '.', '_' and '-', and starts with a letter "
            f"or digit; pass for example --name {kit_name(name)}"
        )
    return name


def _with_parity(manifest: Manifest, parity: Parity) -> Manifest:
    fp32 = manifest.models["fp32"].model_copy(update={"parity": parity})
    return manifest.model_copy(update={"models": {**manifest.models, "fp32": fp32}})


def _write_thumbnails(kit: Path, images: Iterator[tuple[str, np.ndarray]]) -> None:
    (kit / THUMBNAILS).mkdir()
    for row, (_, image) in enumerate(images):
        (kit / thumbnail_file(row)).write_bytes(thumbnail(image))


def _provenance(record: RunRecord, table: Sequence[NormalImage], head: PatchHead | None) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=record.fine_tuning.model_dump()
        | {
            "holdout": record.holdout,
            "group_by": record.group_by,
            "taps": [tap.module for tap in head.taps] if head else None,
            "selected_step": record.selection.selected_step if record.selection else record.fine_tuning.steps,
        },
        weights=record.weights,
        seed=record.fine_tuning.seed,
        images=sum(image.role in ("bank", "calibration") for image in table),
        data_fingerprint=record.data_fingerprint,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )
