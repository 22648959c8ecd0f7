"""From a run folder to a kit: the whole of `msc-edge export`, for Python users."""

import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from msc_edge import __version__
from msc_edge.bank import Bank
from msc_edge.calibration import Calibration
from msc_edge.errors import SourceError, UsageError
from msc_edge.export.index import build_index, preferred_search
from msc_edge.export.onnx_model import OPSET, export_onnx
from msc_edge.export.proof import compare, proof_pictures, prove
from msc_edge.export.thumbnails import thumbnail_name, write_thumbnail
from msc_edge.files import folder_written_whole, sha256_of
from msc_edge.kit import BANK, INDEX, MANIFEST, MODEL, NORMALS, THUMBNAILS, seal
from msc_edge.manifest import BankInfo, CalibrationInfo, HnswIndex, Manifest, Model, Provenance
from msc_edge.progress import Report, silent
from msc_edge.runtime import Detector
from msc_edge.runtime.model import EmbeddingModel, usable_cores
from msc_edge.train.backbones import build_backbone
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.pictures import Picture, normal_folder, read_pictures
from msc_edge.train.reading import decoded
from msc_edge.train.run import BACKBONE, CALIBRATION, PICTURES, RunRecord, read_record
from msc_edge.train.run import BANK as RUN_BANK
from msc_edge.train.weights import load_into

WARN_RATE, REJECT_RATE = 0.05, 0.01
_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "hnswlib", "numpy", "opencv-python")


def export(
    run: Path,
    out: Path,
    *,
    normal: Path | None = None,
    warn_rate: float = WARN_RATE,
    reject_rate: float = REJECT_RATE,
    thumbnails: bool = True,
    overwrite: bool = False,
    report: Report = silent,
) -> Manifest:
    """Write the kit folder `out` from the run folder `run`, proven with the runtime's own code.

    `normal` says where the run's pictures lie now, if they have moved. Raises KitError when the run is not whole or
    the proof fails, SourceError when the pictures are not those that were trained on; `out` is then left as it was.
    """
    if overwrite and out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out}: is not a kit, and --overwrite replaces nothing else; choose another name")
    record = read_record(run)
    pictures = read_pictures(run / PICTURES)
    in_bank = [picture.path for picture in pictures if picture.role == "bank"]
    held_out = [picture.path for picture in pictures if picture.role == "calibration"]
    bank = Bank(np.load(run / RUN_BANK, allow_pickle=False), k=record.k)
    torch_scores = Calibration(np.load(run / CALIBRATION, allow_pickle=False))
    torch_limits = torch_scores.limits(warn_rate=warn_rate, reject_rate=reject_rate)
    backbone = build_backbone(record.backbone, stop_at=record.stop_at)
    load_into(backbone, load_file(run / BACKBONE), source=str(run / BACKBONE))
    network = EmbeddingNetwork(backbone, record.preprocessing).eval()

    with folder_written_whole(out, replace=overwrite) as kit:
        folder = _folder_of(record, pictures, normal, report)
        report("writing the model", 0, 1)
        export_onnx(network, kit / MODEL)
        report("writing the model", 1, 1)
        np.save(kit / BANK, bank.embeddings)
        (kit / NORMALS).write_text(json.dumps(in_bank, indent=0) + "\n", encoding="utf-8")
        if thumbnails:
            _write_thumbnails(
                kit / THUMBNAILS, decoded(folder, in_bank, record.decode, task="thumbnails", report=report)
            )

        # The limits of the kit are set by the scores that the kit itself gives.
        model = EmbeddingModel(kit / MODEL, dim=record.dim, threads=usable_cores())
        reading = decoded(folder, held_out, record.decode, task="calibrating", report=report)
        embeddings = np.stack([model.embed(image) for _, image in reading])
        calibration = Calibration([bank.score(embedding) for embedding in embeddings])
        index = build_index(bank.embeddings, embeddings, record.k, kit / INDEX, seed=record.fine_tuning.seed)

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
                bank=_bank_info(bank, index),
                calibration=CalibrationInfo(
                    scores=calibration.scores.tolist(),
                    warn_rate=warn_rate,
                    reject_rate=reject_rate,
                    limits=calibration.limits(warn_rate=warn_rate, reject_rate=reject_rate),
                ),
                provenance=_provenance(record, pictures),
                parity=None,
                files={},
            ),
        )
        detector = Detector.load(kit)
        chosen = proof_pictures(held_out, in_bank)
        reading = decoded(folder, chosen, record.decode, task="proving", report=report)
        comparisons = compare(network, bank, detector, reading, count=len(chosen))
        parity = prove(comparisons, torch_limits, detector.limits)
        return seal(kit, manifest.model_copy(update={"parity": parity}))


def _folder_of(record: RunRecord, pictures: Sequence[Picture], moved: Path | None, report: Report) -> Path:
    """Where the run's pictures lie, every one of them with the bytes that were trained on."""
    folder = normal_folder(moved) if moved else Path(record.folder)
    used = [picture for picture in pictures if picture.role in ("bank", "calibration")]
    for done, picture in enumerate(used, start=1):
        path = folder / picture.path
        if not path.is_file():
            raise SourceError(
                f"{path}: the run was trained with it, and it is not there; pass --normal DIR if it moved"
            )
        if sha256_of(path) != picture.sha256:
            raise SourceError(f"{path}: has changed since the training; put the old file back, or train again")
        report("checking the pictures", done, len(used))
    return folder


def _write_thumbnails(folder: Path, images: Iterator[tuple[str, np.ndarray]]) -> None:
    folder.mkdir()
    for row, (_, image) in enumerate(images):
        write_thumbnail(folder / thumbnail_name(row), image)


def _bank_info(bank: Bank, index: HnswIndex) -> BankInfo:
    count, dim = bank.embeddings.shape
    return BankInfo(count=count, dim=dim, k=bank.k, search=preferred_search(index, count=count), index=index)


def _provenance(record: RunRecord, pictures: Sequence[Picture]) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=record.fine_tuning.model_dump()
        | {
            "holdout": record.holdout,
            "group_by": record.group_by,
            "kept_step": record.selection.kept_step if record.selection else record.fine_tuning.steps,
        },
        weights=record.weights,
        seed=record.fine_tuning.seed,
        pictures=sum(picture.role in ("bank", "calibration") for picture in pictures),
        data_fingerprint=record.data_fingerprint,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )
