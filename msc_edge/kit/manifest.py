"""`manifest.json`: what a kit is, how it was made, and the SHA-256 of each of its files.

The written specification is docs/kit-format.md; docs/manifest.schema.json is generated from these classes.
"""

import json
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from msc_edge.errors import KitError
from msc_edge.images import DecodePolicy
from msc_edge.kit.layout import FileName, KitName, Precision, Sha256, kit_name
from msc_edge.kit.model_entry import CalibrationInfo, Model
from msc_edge.kit.part import Part
from msc_edge.kit.upgrade import FORMAT_VERSION, upgraded
from msc_edge.preprocessing import Preprocessing
from msc_edge.text import strict_json


class FileEntry(Part):
    """Size and hash of one file of the kit."""

    sha256: Sha256
    bytes: NonNegativeInt


class Network(Part):
    """The network that every model of the kit computes."""

    backbone: str = Field(description="name of the architecture, such as edge-small or torchvision's resnet18")
    stop_at: str | None = Field(description="last stage of the backbone that is used; null: all stages")


class NormalImages(Part):
    """The normal images behind the rows of every memory bank of the kit."""

    file: FileName = Field(description="JSON list of `count` strings: the path of each image in the training folder")
    count: PositiveInt


class Weights(Part):
    """Source of the pretrained weights."""

    source: str = Field(description="a torchvision weights name, or the name of the given file")
    sha256: Sha256
    licence: str


class Provenance(Part):
    """How the kit was made."""

    created: str = Field(description="UTC, ISO 8601")
    recipe: dict[str, Any] = Field(description="every setting of the fine-tuning")
    weights: Weights
    seed: int
    images: PositiveInt = Field(description="normal images used, exact copies left out")
    data_fingerprint: Sha256 = Field(description="SHA-256 over the sorted lines 'sha256  path' of all images")
    versions: dict[str, str]


class Manifest(Part):
    """The whole of manifest.json."""

    format_version: Literal[2]
    name: KitName = Field(description="name of the kit, for people")
    msc_edge_version: str = Field(description="version that wrote the kit")
    decode: DecodePolicy
    preprocessing: Preprocessing
    network: Network
    normal_images: NormalImages
    models: dict[Precision, Model] = Field(min_length=1, description="the models of the kit, by precision")
    default_model: Literal["auto", "fp32", "int8"] = Field(
        description="model that scores by default; auto, in kits of earlier versions: fp32"
    )
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
            if (patches := model.outputs.patch_distances) and not patches.fits(self.preprocessing):
                raise ValueError(f"the patches of {model.file} do not cover the input that preprocessing describes")
            if (model.dim, bank.k, model.scoring.kind) != (first.dim, first.banks.images.k, first.scoring.kind):
                raise ValueError("the models differ in dim, k or what their scores are made of")
        return self

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions of the kit's models, fp32 first."""
        return tuple(sorted(self.models))

    @property
    def default_precision(self) -> Precision:
        """The model that scores by default. `auto` of an earlier version is fp32, or the only model."""
        return self.precisions[0] if self.default_model == "auto" else self.default_model

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
        where = ".".join(map(str, first["loc"]))
        # Of our own checks the error itself: pydantic's message begins with "Value error, ".
        reason = first.get("ctx", {}).get("error", first["msg"])
        found = ": ".join(filter(None, ["manifest.json", where, str(reason)]))
        raise KitError(f"{found}; export the kit again") from error


def manifest_schema() -> str:
    """The JSON schema of manifest.json (draft 2020-12), as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"
