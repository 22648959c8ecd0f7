"""`manifest.json`, the first file of a kit to read: what the kit is, how it was made, and what its files must hash to.

The written specification is docs/kit-format.md; docs/manifest.schema.json is generated from these models.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

from msc_edge.calibration import Calibration, Limits
from msc_edge.errors import KitError
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import Preprocessing

FORMAT_VERSION = 1
HISTORY_KEPT = 20  # earlier calibrations; older ones are dropped
HELD_OUT = "held out of the images that were trained on"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# One optional folder, plain characters, no leading dot: nothing that could point outside the kit.
FileName = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]+/)?[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
Rate = Annotated[float, Field(gt=0, lt=1)]
Precision = Literal["fp32", "int8"]
PrecisionChoice = Literal["auto", "fp32", "int8"]
Target = Literal["x86-vnni", "x86", "arm64"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Part):
    """What a file of the kit must be."""

    sha256: Sha256
    bytes: NonNegativeInt


class Model(_Part):
    """`model.onnx`: one image, uint8 (1, height, width, 3) RGB of any size, in; a unit embedding (1, dim) out."""

    backbone: str = Field(description="torchvision's name of the architecture")
    stop_at: str | None = Field(description="the stage that the backbone ends with; null: the last")
    dim: PositiveInt
    precision: Literal["fp32"]
    opset: PositiveInt


class HnswIndex(_Part):
    """`bank.hnsw`, an hnswlib index over bank.npy. Its own file stores neither space nor dim nor ef."""

    space: Literal["cosine"] = "cosine"
    m: PositiveInt
    ef_construction: PositiveInt
    ef: PositiveInt
    recall: float = Field(ge=0, le=1, description="share of the true k nearest rows found, over `queries` queries")
    queries: PositiveInt


class BankInfo(_Part):
    """`bank.npy`, float32 (count, dim), unit rows; and how it is searched."""

    count: PositiveInt
    dim: PositiveInt
    k: PositiveInt = Field(description="the score is the mean cosine distance to this many nearest rows")
    search: Literal["exact", "hnsw"] = Field(description="the default of the runtime; the scores are the same")
    index: HnswIndex | None

    @model_validator(mode="after")
    def _k_fits(self) -> "BankInfo":
        if self.k > self.count:
            raise ValueError(f"k {self.k} is more than the {self.count} rows")
        return self


class EarlierCalibration(_Part):
    """A calibration that is no longer in force: what remains of it when `msc-edge calibrate` sets the limits anew."""

    created: str = Field(description="UTC, ISO 8601")
    why: str
    count: PositiveInt = Field(description="number of scores")
    quantiles: tuple[float, float, float, float, float] = Field(
        description="of the scores: smallest, lower quartile, median, upper quartile, largest"
    )
    warn_rate: Rate
    reject_rate: Rate
    limits: Limits


class CalibrationInfo(_Part):
    """Good images outside the bank, scored by the kit's own model: what limits and p-values are computed from."""

    scores: list[float] = Field(min_length=1, description="in ascending order")
    warn_rate: Rate
    reject_rate: Rate
    limits: Limits = Field(description="what follows from the scores and the two rates")
    created: str | None = Field(default=None, description="UTC, ISO 8601; null: with the kit")
    why: str = Field(default=HELD_OUT, description="where the images come from, and why they were scored")
    history: list[EarlierCalibration] = Field(
        default=[], max_length=HISTORY_KEPT, description="the calibrations before this one, newest last"
    )

    @property
    def calibrated(self) -> Calibration:
        """The scores, ready to give p-values and limits."""
        return Calibration(self.scores)


class Weights(_Part):
    """Where the pretrained weights came from."""

    source: str = Field(description="a torchvision weights name, or the name of the file that was given")
    sha256: Sha256
    licence: str


class Quantization(_Part):
    """How `model.int8.onnx` was made from model.onnx: static, QDQ, per channel."""

    target: Target = Field(
        description="the processors that it was made for. x86-vnni: uint8 activations and int8 weights; x86: the same "
        "with 7-bit weights, which older processors add up without overflow; arm64: int8 and int8"
    )
    images: PositiveInt = Field(description="images of the bank whose activations set the ranges")
    layers: PositiveInt = Field(description="convolutions of the backbone")
    in_float: list[str] = Field(description="those that were left in float, by the names of their weights")
    check: list[float] = Field(
        description="its embedding of the check image (docs/kit-format.md): a processor that gives another one adds "
        "up differently, and must not use this model"
    )


class Agreement(_Part):
    """How int8 ranks images beside float: held-out good ones, and spoiled copies of them."""

    good: PositiveInt
    spoiled: PositiveInt
    auroc_fp32: float = Field(ge=0, le=1, description="by which model.onnx tells spoiled from good")
    auroc_int8: float = Field(ge=0, le=1, description="the same of model.int8.onnx")
    rank_correlation: float = Field(ge=-1, le=1, description="Spearman's, of the scores of all these images")


class Int8(_Part):
    """`model.int8.onnx`, with the same signature as model.onnx: faster, and with a bank and limits of its own."""

    quantization: Quantization
    agreement: Agreement
    bank: BankInfo = Field(description="`bank.int8.npy`: the same normals, in the same order")
    calibration: CalibrationInfo


class Provenance(_Part):
    """How the kit came to be."""

    created: str = Field(description="UTC, ISO 8601")
    recipe: dict[str, Any] = Field(description="every setting of the fine-tuning")
    weights: Weights
    seed: int
    images: PositiveInt = Field(description="normal images given, exact copies left out")
    data_fingerprint: Sha256 = Field(description="SHA-256 over the sorted lines 'sha256  path' of all images")
    versions: dict[str, str]


class Parity(_Part):
    """Training's scores against the runtime's, measured on real images before the kit was put in place."""

    images: PositiveInt
    max_score_difference: float = Field(ge=0)
    max_embedding_difference: float = Field(ge=0)
    changed_verdicts: Literal[0]


class Manifest(_Part):
    """The whole of manifest.json."""

    format_version: Literal[1]
    msc_edge_version: str
    decode: DecodePolicy
    preprocessing: Preprocessing
    model: Model
    bank: BankInfo
    calibration: CalibrationInfo
    provenance: Provenance
    parity: Parity | None = Field(description="null only while an export is still proving the kit")
    int8: Int8 | None = Field(default=None, description="null: the kit has float alone")
    preferred: PrecisionChoice = Field(
        default="fp32", description="what the runtime uses unless told; auto: what is faster where it runs"
    )
    files: dict[FileName, FileEntry] = Field(
        description="every file of the kit but manifest.json, manifest.sha256",
        json_schema_extra={"additionalProperties": False},
    )

    def to_json(self) -> str:
        """The text of manifest.json."""
        return self.model_dump_json(indent=2) + "\n"

    @model_validator(mode="after")
    def _int8_fits(self) -> "Manifest":
        if self.int8 is None:
            if self.preferred == "int8":
                raise ValueError("preferred is int8, and the kit has float alone")
            return self
        ours, theirs = self.bank, self.int8.bank
        if (ours.count, ours.dim, ours.k) != (theirs.count, theirs.dim, theirs.k):
            raise ValueError("the bank of int8 has another size than that of float")
        return self

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that the kit has a model for."""
        return ("fp32", "int8") if self.int8 else ("fp32",)

    def bank_of(self, precision: Precision) -> BankInfo:
        """The bank that this model's embeddings are compared with."""
        return self.int8.bank if precision == "int8" and self.int8 else self.bank

    def calibration_of(self, precision: Precision) -> CalibrationInfo:
        """Where the limits of this model's scores come from."""
        return self.int8.calibration if precision == "int8" and self.int8 else self.calibration

    def recalibrated(self, calibrations: dict[Precision, CalibrationInfo]) -> "Manifest":
        """The same with other calibrations, of all its precisions."""
        int8 = self.int8 and self.int8.model_copy(update={"calibration": calibrations["int8"]})
        return self.model_copy(update={"calibration": calibrations["fp32"], "int8": int8})


def parse_manifest(text: bytes) -> Manifest:
    """Read manifest.json. KitError for another format version, and for anything that breaks the schema."""
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise KitError(f"manifest.json: not JSON ({error}); copy the kit again") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise KitError(
            f"manifest.json: format_version is {version!r}, and this msc-edge reads {FORMAT_VERSION}; "
            "install the msc-edge that wrote the kit, or export it again with this one"
        )
    try:
        return Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise KitError(f"manifest.json: {where}: {first['msg']}; export the kit again") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def manifest_schema() -> str:
    """The JSON schema of manifest.json (draft 2020-12), as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"
