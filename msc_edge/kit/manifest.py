"""`manifest.json`: what a kit is, how it was made, and the SHA-256 of each of its files.

The written specification is docs/kit-format.md; docs/manifest.schema.json is generated from these classes.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from msc_edge.calibration import Calibration, Limits
from msc_edge.errors import KitError
from msc_edge.images import DecodePolicy
from msc_edge.kit.layout import FileName, KitName, Precision, PrecisionChoice, Sha256, kit_name
from msc_edge.kit.upgrade import FORMAT_VERSION, upgraded
from msc_edge.preprocessing import Preprocessing
from msc_edge.text import strict_json

HISTORY_LENGTH = 20  # earlier calibrations that a kit keeps
HELD_OUT = "held out of the training images"

Rate = Annotated[float, Field(gt=0, lt=1)]
Target = Literal["x86-vnni", "x86", "arm64"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Part):
    """Size and hash of one file of the kit."""

    sha256: Sha256
    bytes: NonNegativeInt


class Network(_Part):
    """The network that every model of the kit computes."""

    backbone: str = Field(description="name of the architecture, such as edge-small or torchvision's resnet18")
    stop_at: str | None = Field(description="last stage of the backbone that is used; null: all stages")


class NormalImages(_Part):
    """The normal images behind the rows of every memory bank of the kit."""

    file: FileName = Field(description="JSON list of `count` strings: the path of each image in the training folder")
    count: PositiveInt


class EmbeddingOutput(_Part):
    """Output `embedding` of a model: float32 (1, dim), unit length."""

    dim: PositiveInt


class Outputs(_Part):
    """The outputs of a model, by name."""

    embedding: EmbeddingOutput


class HnswIndex(_Part):
    """An hnswlib index over a memory bank. The file itself stores neither space nor dimension nor ef."""

    file: FileName
    space: Literal["cosine"] = "cosine"
    m: PositiveInt
    ef_construction: PositiveInt
    ef: PositiveInt
    recall: float = Field(ge=0, le=1, description="share of the true k nearest rows found, over `queries` queries")
    queries: PositiveInt


class MemoryBank(_Part):
    """Embeddings of the normal images under one model, float32 (count, dim), unit rows, and how to search them."""

    file: FileName
    count: PositiveInt
    k: PositiveInt = Field(description="the score is the mean cosine distance to the k nearest rows")
    search: Literal["exact", "hnsw"] = Field(description="default search of the runtime; both give the same scores")
    index: HnswIndex | None

    @model_validator(mode="after")
    def _k_fits(self) -> "MemoryBank":
        if self.k > self.count:
            raise ValueError(f"k {self.k} is larger than the {self.count} rows")
        return self


class Banks(_Part):
    """The memory banks of a model, by what their rows stand for."""

    images: MemoryBank = Field(description="one row for each normal image, searched with output `embedding`")


class EarlierCalibration(_Part):
    """What a kit keeps of a calibration that `msc-edge calibrate` replaced."""

    created: str = Field(description="UTC, ISO 8601")
    reason: str
    count: PositiveInt = Field(description="number of scores")
    quantiles: tuple[float, float, float, float, float] = Field(
        description="of the scores: minimum, lower quartile, median, upper quartile, maximum"
    )
    warn_rate: Rate
    reject_rate: Rate
    limits: Limits


class CalibrationInfo(_Part):
    """Scores of normal images outside the memory bank, computed by this model. Limits and p-values follow from them."""

    scores: list[float] = Field(min_length=1, description="in ascending order")
    warn_rate: Rate = Field(description="target false-alarm rate of the warn limit")
    reject_rate: Rate = Field(description="target false-alarm rate of the reject limit")
    limits: Limits = Field(description="follow from the scores and the two rates")
    created: str | None = Field(default=None, description="UTC, ISO 8601; null: created with the kit")
    reason: str = Field(default=HELD_OUT, description="which images were scored, and why")
    history: list[EarlierCalibration] = Field(
        default=[], max_length=HISTORY_LENGTH, description="earlier calibrations, newest last"
    )

    @property
    def calibration(self) -> Calibration:
        """The scores, ready to give p-values and limits."""
        return Calibration(self.scores)


class Parity(_Part):
    """Scores of training compared with scores of the runtime, on real images, before the kit was written."""

    images: PositiveInt
    max_score_difference: float = Field(ge=0)
    max_embedding_difference: float = Field(ge=0)
    changed_verdicts: Literal[0]


class Quantization(_Part):
    """How a model was quantised from the fp32 model: static, QDQ, weights per channel."""

    target: Target = Field(
        description="processors the model was made for. x86-vnni: uint8 activations, int8 weights; x86: the same with "
        "7-bit weights, which do not overflow on processors without VNNI; arm64: int8 activations, int8 weights"
    )
    images: PositiveInt = Field(description="images of the memory bank that set the activation ranges")
    layers: PositiveInt = Field(description="convolutions of the backbone")
    float_layers: list[str] = Field(description="convolutions that stay in float, by the names of their weights")
    check_embedding: list[float] = Field(
        description="embedding of the check image (docs/kit-format.md). A processor that computes another embedding "
        "must not use this model"
    )


class Agreement(_Part):
    """How a quantised model ranks images compared with the fp32 model."""

    normal_images: PositiveInt = Field(description="held-out normal images")
    synthetic_anomalies: PositiveInt = Field(description="synthetic anomalies made from them")
    auroc_fp32: float = Field(ge=0, le=1, description="AUROC of the fp32 scores, anomalies against normal images")
    auroc: float = Field(ge=0, le=1, description="AUROC of this model's scores")
    rank_correlation: float = Field(ge=-1, le=1, description="Spearman correlation of the scores of both models")


class Model(_Part):
    """One model of the kit with its own memory bank, calibration and limits."""

    file: FileName = Field(description="ONNX; input `image`: uint8 (1, height, width, 3), RGB, any size")
    opset: PositiveInt
    outputs: Outputs
    banks: Banks
    calibration: CalibrationInfo
    parity: Parity | None = Field(default=None, description="null: not compared with training")
    quantization: Quantization | None = Field(default=None, description="null: the model computes in float32")
    agreement: Agreement | None = Field(default=None, description="null for fp32")

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.outputs.embedding.dim

    @property
    def files(self) -> list[str]:
        """Names of the files that belong to this model."""
        bank = self.banks.images
        return [self.file, bank.file, *([bank.index.file] if bank.index else [])]


class Weights(_Part):
    """Source of the pretrained weights."""

    source: str = Field(description="a torchvision weights name, or the name of the given file")
    sha256: Sha256
    licence: str


class Provenance(_Part):
    """How the kit was made."""

    created: str = Field(description="UTC, ISO 8601")
    recipe: dict[str, Any] = Field(description="every setting of the fine-tuning")
    weights: Weights
    seed: int
    images: PositiveInt = Field(description="normal images used, exact copies left out")
    data_fingerprint: Sha256 = Field(description="SHA-256 over the sorted lines 'sha256  path' of all images")
    versions: dict[str, str]


class Manifest(_Part):
    """The whole of manifest.json."""

    format_version: Literal[2]
    name: KitName = Field(description="name of the kit, for people")
    msc_edge_version: str = Field(description="version that wrote the kit")
    decode: DecodePolicy
    preprocessing: Preprocessing
    network: Network
    normal_images: NormalImages
    models: dict[Precision, Model] = Field(min_length=1, description="the models of the kit, by precision")
    default_model: PrecisionChoice = Field(description="model that scores by default; auto: the faster one on this PC")
    provenance: Provenance
    extensions: dict[str, Any] = Field(
        default={}, description="further members that readers may ignore: no score or verdict depends on them"
    )
    files: dict[FileName, FileEntry] = Field(
        description="every file of the kit except manifest.json and manifest.sha256",
        json_schema_extra={"additionalProperties": False},
    )

    def to_json(self) -> str:
        """The text of manifest.json."""
        return self.model_dump_json(indent=2) + "\n"

    @model_validator(mode="after")
    def _models_fit(self) -> "Manifest":
        if self.default_model not in ("auto", *self.models):
            raise ValueError(f"default_model is {self.default_model}, and the kit has no such model")
        first = next(iter(self.models.values()))
        for model in self.models.values():
            bank = model.banks.images
            if bank.count != self.normal_images.count:
                raise ValueError(f"{bank.file} has {bank.count} rows for {self.normal_images.count} normal images")
            if (model.dim, bank.k) != (first.dim, first.banks.images.k):
                raise ValueError("the models differ in dim or k")
        return self

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions of the kit's models, fp32 first."""
        return tuple(sorted(self.models))

    @property
    def reference_model(self) -> Model:
        """The model that figures about the whole kit refer to: fp32, or the only one."""
        return self.models[self.precisions[0]]

    def with_calibrations(self, calibrations: dict[Precision, CalibrationInfo]) -> "Manifest":
        """The same manifest with the calibrations of some models replaced."""
        models = {
            precision: model.model_copy(update={"calibration": calibrations.get(precision, model.calibration)})
            for precision, model in self.models.items()
        }
        return self.model_copy(update={"models": models})


def parse_manifest(text: bytes, *, name: str = "kit") -> Manifest:
    """The manifest alone; see `read_manifest`."""
    return read_manifest(text, name=name)[0]


def read_manifest(text: bytes, *, name: str) -> tuple[Manifest, int]:
    """Read manifest.json of this format or an older one: the manifest in this format, and the format in the file.

    `name` is the kit's name where an older format has none. Raises KitError for a newer format, and for anything that
    breaks the schema.
    """
    try:
        document = strict_json(text)
    except ValueError as error:
        raise KitError(f"manifest.json: not JSON ({error}); copy the kit again") from error
    version: Any = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        text = json.dumps(upgraded(document, name=kit_name(name))).encode()
    try:
        return Manifest.model_validate_json(text, strict=True), version
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise KitError(f"manifest.json: {where}: {first['msg']}; export the kit again") from error


def manifest_schema() -> str:
    """The JSON schema of manifest.json (draft 2020-12), as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"
