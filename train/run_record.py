"""A run folder: the output of training and the input of export.

RUN/backbone.safetensors    the fine-tuned trunk, with torchvision's key names
    bank.npy                float32 (n, dim): embeddings of the normal images in the memory bank
    calibration.npy         float64 (m,): image scores of the calibration images, held out once or in turn
    patches.safetensors     the patch head, with its bank; missing in a run that compares whole images only
    patch_calibration.npy   float64 (m,): patch scores of the calibration images; likewise
    standard.npy            float64 (c, 3): calibration image, image and patch score of each changed copy; likewise
    images.csv              path, SHA-256 and role of every image; the rows of both arrays follow its order
    metrics.csv  tensorboard/   metrics of each step
    curves.svg              the metrics as plots; missing in a run without training steps
    views.png               training images with their augmented views; likewise
    run.json                the record below; written last, so a run that has it is complete
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from msc_edge.errors import KitError
from msc_edge.files import kind_of, open_regular, sha256_of, written_whole
from msc_edge.images import DecodePolicy
from msc_edge.kit.manifest import FileEntry, Weights
from msc_edge.preprocessing import Preprocessing
from msc_edge.scoring import MapSettings, ScoreKind
from msc_edge.train.checkpoint_selection import Candidate
from msc_edge.train.run_folder import METRICS, RECORD
from msc_edge.train.settings import FineTuning

RUN_FORMAT = 2
BACKBONE = "backbone.safetensors"
BANK = "bank.npy"
CALIBRATION = "calibration.npy"
PATCHES = "patches.safetensors"
PATCH_CALIBRATION = "patch_calibration.npy"
STANDARD = "standard.npy"
IMAGE_TABLE = "images.csv"
OF_PATCHES = (PATCHES, PATCH_CALIBRATION, STANDARD)
PACKAGES = ("torch", "torchvision", "lightning", "numpy", "opencv-python")  # their versions are in the record


class SelectionRecord(BaseModel):
    """The result of checkpoint selection."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    candidates: tuple[Candidate, ...]
    selected_step: NonNegativeInt


class RunRecord(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: Literal[2] = RUN_FORMAT
    msc_edge_version: str
    created: str
    backbone: str
    stop_at: str | None
    dim: PositiveInt
    k: PositiveInt
    decode: DecodePolicy
    preprocessing: Preprocessing
    fine_tuning: FineTuning
    scores: ScoreKind = Field(default="image", description="what the score of a kit is made of")
    map: MapSettings | None = Field(default=None, description="null: the run compares whole images only")
    patch_rows: PositiveInt | None = Field(default=None, description="rows of the patch bank; null: likewise")
    taps: tuple[str, ...] | None = Field(
        default=None, description="modules of the backbone whose feature maps make the patches; null: likewise"
    )
    selection: SelectionRecord | None = Field(default=None, description="null: the weights of the last step")
    in_turn: bool = Field(
        default=False,
        description="held out in turn: all images are in the memory bank, and each calibration image is scored without "
        "its own group. They are all images, or, if the network is fine-tuned, those that were held out of training. "
        "Else the calibration images are in no memory bank",
    )
    holdout: float | None = Field(default=None, description="share held out; null: an older msc-edge did not record it")
    group_by: str | None = Field(default=None, description="held out in groups: a pattern, or folder; null: in blocks")
    weights: Weights
    folder: str
    data_fingerprint: str
    versions: dict[str, str]
    files: dict[str, FileEntry] = {}

    @property
    def trained(self) -> bool:
        """Whether the network was fine-tuned, and this was not undone."""
        return self.selection.selected_step > 0 if self.selection else self.fine_tuning.steps > 0


def write_record(folder: Path, record: RunRecord) -> RunRecord:
    """Write run.json with the hashes of the run's files. Returns the record with the hashes."""
    entries = {
        name: FileEntry(sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size)
        for name in (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, *(OF_PATCHES if record.map else ()))
    }
    complete = record.model_copy(update={"files": entries})
    with written_whole(folder / RECORD) as path:
        path.write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return complete


def read_record(folder: Path) -> RunRecord:
    """Read run.json, of this or an older format, and check the run's files against it.

    Raises KitError if the run is incomplete, damaged, or of a newer format.
    """
    path = folder / RECORD
    kind, reason = kind_of(path)
    if kind != "file":
        started = kind_of(folder / METRICS)[0] is not None
        raise KitError(
            f"{folder}: this training has not finished; resume it: msc-edge train --resume, with the same options"
            if started
            else f"{folder}: not a run of msc-edge train ({RECORD}: {reason or 'it is a folder'}); check the path"
        )
    try:
        with open_regular(path) as file:
            record = RunRecord.model_validate_json(_upgraded(path, file.read()))
        for name, entry in record.files.items():
            if kind_of(folder / name)[0] != "file":
                raise KitError(f"{folder / name} is missing; copy the run again, or train again")
            if sha256_of(folder / name) != entry.sha256:
                raise KitError(f"{folder / name}: SHA-256 differs from {RECORD}; copy the run again, or train again")
    except OSError as error:
        raise KitError(f"{error.filename or path}: cannot be read: {error.strerror}; check the permissions") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise KitError(f"{path}: {where}: {first['msg']}; train again with this msc-edge") from error
    return record


def _upgraded(path: Path, data: bytes) -> bytes:
    """Run.json in the current format. Anything that is not a record stays as it is, for validation to reject."""
    try:
        document = json.loads(data)
    except ValueError:
        return data
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > RUN_FORMAT:
        raise KitError(
            f"{path}: format_version {version} is newer than {RUN_FORMAT}, the newest that this msc-edge reads; "
            "update msc-edge"
        )
    return json.dumps(_from_format_1(document)).encode() if version == 1 else data


def _from_format_1(document: dict[str, Any]) -> dict[str, Any]:
    """Rename the fields of a run.json that msc-edge 0.1.0 wrote. `files` still has the old names of the files."""
    document = document | {"format_version": RUN_FORMAT}
    if isinstance(settings := document.get("fine_tuning"), dict):
        document["fine_tuning"] = _renamed(settings, {"precision": "dtype"})
    if isinstance(selection := document.get("selection"), dict):
        selection = _renamed(selection, {"kept_step": "selected_step"})
        selection["candidates"] = [
            _renamed(candidate, {"kept": "selected", "jumbled": "shuffled"})
            for candidate in selection.get("candidates", [])
        ]
        document["selection"] = selection
    return document


def _renamed(fields: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in fields.items()}
