"""From a run folder to a kit: the whole of `msc-edge export`, for Python users."""

import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from safetensors.torch import load_file

from msc_edge import __version__
from msc_edge.bank import Bank
from msc_edge.calibration import Calibration
from msc_edge.errors import UsageError
from msc_edge.export.index import build_index, preferred_search
from msc_edge.export.int8 import Int8Rejected, embeddings_of, quantised_model
from msc_edge.export.onnx_model import OPSET, export_onnx
from msc_edge.export.parity import check_parity, compare, parity_images
from msc_edge.export.run_images import RunImages
from msc_edge.export.thumbnails import thumbnail_name, write_thumbnail
from msc_edge.files import folder_written_whole
from msc_edge.kit.layout import BANKS, INDEXES, INT8_MODEL, MANIFEST, MODEL, MODELS, NORMALS, THUMBNAILS
from msc_edge.kit.manifest import (
    BankInfo,
    CalibrationInfo,
    Int8,
    Manifest,
    Model,
    Precision,
    PrecisionChoice,
    Provenance,
    Target,
)
from msc_edge.kit.opening import refuse_zip, seal
from msc_edge.preprocessing import Preprocessing
from msc_edge.progress import Report, silent
from msc_edge.runtime import Detector
from msc_edge.train.backbones import build_backbone
from msc_edge.train.dataset import NormalImage, read_image_table
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.run_record import BACKBONE, CALIBRATION, IMAGE_TABLE, RunRecord, read_record
from msc_edge.train.run_record import BANK as RUN_BANK
from msc_edge.train.weights import load_into

Precisions = Literal["both", "fp32", "int8"]
WARN_RATE, REJECT_RATE = 0.05, 0.01
_PREFERRED: dict[Precisions, PrecisionChoice] = {"both": "auto", "fp32": "fp32", "int8": "int8"}
_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "hnswlib", "numpy", "opencv-python")


class Rates(NamedTuple):
    """The false-alarm rates that the limits are set for."""

    warn: float
    reject: float


def export(
    run: Path,
    out: Path,
    *,
    normal: Path | None = None,
    warn_rate: float = WARN_RATE,
    reject_rate: float = REJECT_RATE,
    precision: Precisions = "both",
    target: Target = "x86-vnni",
    thumbnails: bool = True,
    overwrite: bool = False,
    report: Report = silent,
    note: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write the kit folder `out` from the run folder `run`, proven with the runtime's own code.

    `normal` says where the run's images lie now, if they have moved. `precision`: the float model is always there;
    `both` adds the int8 one where it agrees with float, and says to `note` where it does not; `int8` insists on it,
    and makes it what the runtime uses. `target`: the processors that int8 is made for, see Quantization. Raises
    UsageError where int8 is insisted on and does not agree, KitError when the run is not whole or the proof fails,
    SourceError when the images are not those that were trained on; `out` is then left as it was.
    """
    refuse_zip(out)
    if overwrite and out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out}: is not a kit, and --overwrite replaces nothing else; choose another name")
    record = read_record(run)
    images = read_image_table(run / IMAGE_TABLE)
    bank = Bank(np.load(run / RUN_BANK, allow_pickle=False), k=record.k)
    torch_scores = Calibration(np.load(run / CALIBRATION, allow_pickle=False))
    torch_limits = torch_scores.limits(warn_rate=warn_rate, reject_rate=reject_rate)
    backbone = build_backbone(record.backbone, stop_at=record.stop_at)
    load_into(backbone, load_file(run / BACKBONE), source=str(run / BACKBONE))
    network = EmbeddingNetwork(backbone, record.preprocessing).eval()
    rates, seed = Rates(warn_rate, reject_rate), record.fine_tuning.seed

    with folder_written_whole(out, replace=overwrite) as kit:
        own = RunImages.found(record, images, normal, report)
        report("writing the model", 0, 1)
        export_onnx(network, kit / MODEL)
        report("writing the model", 1, 1)
        (kit / NORMALS).write_text(json.dumps(own.in_bank, indent=0) + "\n", encoding="utf-8")
        if thumbnails:
            _write_thumbnails(kit / THUMBNAILS, own.decoded(own.in_bank, "thumbnails"))

        bank_info, calibration = _part(kit, "fp32", bank, own, rates=rates, seed=seed)
        int8 = None
        if precision != "fp32":
            int8 = _int8_part(kit, bank, own, record.preprocessing, target=target, rates=rates, seed=seed)
        if isinstance(int8, Int8Rejected):
            if precision == "int8":
                raise UsageError(f"{int8}; export with --precision fp32")
            note(str(int8))
            int8 = None

        manifest = seal(
            kit,
            Manifest(
                format_version=1,
                msc_edge_version=__version__,
                decode=record.decode,
                preprocessing=record.preprocessing,
                model=Model(
                    backbone=record.backbone, stop_at=record.stop_at, dim=record.dim, precision="fp32", opset=OPSET
                ),
                bank=bank_info,
                calibration=calibration,
                provenance=_provenance(record, images),
                parity=None,
                int8=int8,
                preferred=_PREFERRED[precision] if int8 else "fp32",
                files={},
            ),
        )
        detector = Detector.load(kit, precision="fp32", backend="onnxruntime")
        chosen = parity_images(own.held_out, own.in_bank)
        comparisons = compare(network, bank, detector, own.decoded(chosen, "proving"), count=len(chosen))
        parity = check_parity(comparisons, torch_limits, detector.limits)
        return seal(kit, manifest.model_copy(update={"parity": parity}))


def _write_thumbnails(folder: Path, images: Iterator[tuple[str, np.ndarray]]) -> None:
    folder.mkdir()
    for row, (_, image) in enumerate(images):
        write_thumbnail(folder / thumbnail_name(row), image)


def _part(
    kit: Path, precision: Precision, bank: Bank, images: RunImages, *, rates: Rates, seed: int
) -> tuple[BankInfo, CalibrationInfo]:
    """Bank, index and limits of one precision: the limits of a kit are set by the scores that the kit itself gives."""
    np.save(kit / BANKS[precision], bank.embeddings)
    count, dim = bank.embeddings.shape
    queries = embeddings_of(kit / MODELS[precision], dim, images.decoded(images.held_out, "calibrating"))
    index = build_index(bank.embeddings, queries, bank.k, kit / INDEXES[precision], seed=seed)
    calibration = Calibration([bank.score(query) for query in queries])
    return (
        BankInfo(count=count, dim=dim, k=bank.k, search=preferred_search(index, count=count), index=index),
        CalibrationInfo(
            scores=calibration.scores.tolist(),
            warn_rate=rates.warn,
            reject_rate=rates.reject,
            limits=calibration.limits(warn_rate=rates.warn, reject_rate=rates.reject),
        ),
    )


def _int8_part(
    kit: Path, bank: Bank, images: RunImages, spec: Preprocessing, *, target: Target, rates: Rates, seed: int
) -> Int8 | Int8Rejected:
    quantised = quantised_model(kit / MODEL, kit / INT8_MODEL, bank, spec, images, target=target, seed=seed)
    if isinstance(quantised, Int8Rejected):
        return quantised
    quantization, agreement = quantised
    in_bank = images.decoded(images.in_bank, "the bank in int8")
    own = Bank(embeddings_of(kit / INT8_MODEL, bank.embeddings.shape[1], in_bank), k=bank.k)
    info, calibration = _part(kit, "int8", own, images, rates=rates, seed=seed)
    return Int8(quantization=quantization, agreement=agreement, bank=info, calibration=calibration)


def _provenance(record: RunRecord, images: Sequence[NormalImage]) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=record.fine_tuning.model_dump()
        | {
            "holdout": record.holdout,
            "group_by": record.group_by,
            "selected_step": record.selection.selected_step if record.selection else record.fine_tuning.steps,
        },
        weights=record.weights,
        seed=record.fine_tuning.seed,
        images=sum(image.role in ("bank", "calibration") for image in images),
        data_fingerprint=record.data_fingerprint,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )
