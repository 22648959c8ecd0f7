"""A run folder: what training writes and export reads.

RUN/backbone.safetensors    the fine-tuned trunk, torchvision's key names
    bank.npy                float32 (n, dim): embeddings of the normals under it
    calibration.npy         float64 (m,): scores of the held-out normals, in the order of images.csv
    images.csv            every image with its SHA-256 and role; rows of the two arrays follow its order
    metrics.csv  tensorboard/   what each step measured
    run.json                the record below; written last, so a run that has it is whole
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from msc_edge.errors import KitError
from msc_edge.files import kind_of, sha256_of, written_whole
from msc_edge.images import DecodePolicy
from msc_edge.kit.manifest import FileEntry, Weights
from msc_edge.preprocessing import Preprocessing
from msc_edge.train.checkpoint_selection import Candidate
from msc_edge.train.recipes import FineTuning

RUN_FORMAT = 1
RECORD = "run.json"
BACKBONE = "backbone.safetensors"
BANK = "bank.npy"
CALIBRATION = "calibration.npy"
IMAGE_TABLE = "images.csv"
PACKAGES = ("torch", "torchvision", "lightning", "numpy", "opencv-python")  # whose versions a record keeps


class SelectionRecord(BaseModel):
    """Which step's weights the run has, and what it was chosen from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    candidates: tuple[Candidate, ...]
    selected_step: NonNegativeInt


class RunRecord(BaseModel):
    """The whole of run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: Literal[1] = RUN_FORMAT
    msc_edge_version: str
    created: str
    backbone: str
    stop_at: str | None
    dim: PositiveInt
    k: PositiveInt
    decode: DecodePolicy
    preprocessing: Preprocessing
    fine_tuning: FineTuning
    selection: SelectionRecord | None = Field(default=None, description="null: the weights of the last step")
    holdout: float | None = Field(default=None, description="share held out; null: not recorded, by an older msc-edge")
    group_by: str | None = Field(default=None, description="held out by groups: a pattern, or folder; null: in blocks")
    weights: Weights
    folder: str
    data_fingerprint: str
    versions: dict[str, str]
    files: dict[str, FileEntry] = {}


def write_record(folder: Path, record: RunRecord) -> RunRecord:
    """Write run.json with the hashes of the run's files."""
    entries = {
        name: FileEntry(sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size)
        for name in (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE)
    }
    whole = record.model_copy(update={"files": entries})
    with written_whole(folder / RECORD) as path:
        path.write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return whole


def read_record(folder: Path) -> RunRecord:
    """Read run.json and check the run's files against it. KitError when the run is not whole."""
    path = folder / RECORD
    kind, reason = kind_of(path)
    if kind != "file":
        begun = kind_of(folder / "metrics.csv")[0] is not None
        raise KitError(
            f"{folder}: the training there is not finished; go on with it: msc-edge train --resume, same options"
            if begun
            else f"{folder}: not a run of msc-edge train ({RECORD}: {reason or 'it is a folder'}); check the path"
        )
    try:
        record = RunRecord.model_validate_json(path.read_bytes())
        for name, entry in record.files.items():
            if kind_of(folder / name)[0] != "file":
                raise KitError(f"{folder / name} is missing; copy the run again, or train again")
            if sha256_of(folder / name) != entry.sha256:
                raise KitError(f"{folder / name}: SHA-256 differs from {RECORD}; copy the run again, or train again")
    except OSError as error:
        raise KitError(f"{error.filename}: cannot be read: {error.strerror}; check the permissions") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise KitError(f"{path}: {where}: {first['msg']}; train again with this msc-edge") from error
    return record
