"""The entry of one model in manifest.json: its file, outputs, memory banks, scoring, calibration and checks."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from msc_edge.calibration import LEAST_RATE, Calibration, Limit, Limits
from msc_edge.kit.layout import FileName
from msc_edge.kit.part import Count, Part
from msc_edge.kit.quantization import Agreement, Quantization
from msc_edge.preprocessing import Preprocessing
from msc_edge.scoring import Scoring

HISTORY_LENGTH = 20  # earlier calibrations that a kit keeps
HELD_OUT = "held out of the training images"
ALL_IN_TURN = "the training images, each without its own group"
HELD_OUT_IN_TURN = f"{HELD_OUT}, each without its own group"

Rate = Annotated[float, Field(gt=0, lt=1)]
Groups = list[Annotated[int, Field(ge=0, lt=2**31)]]
_GROUPS = "of each score: images with the same number show the same part; null: all are independent"


def _check_limit(name: str, limit: Limit, calibration: Calibration, rate: float) -> None:
    """ValueError for a limit that does not follow from the scores: kits have no limit that was set by hand."""
    if rate < LEAST_RATE:
        raise ValueError(f"the target rate {rate:g} of {name} is below {LEAST_RATE:g}")
    if not calibration.gives(limit, rate):
        own = calibration.limit(rate)
        raise ValueError(
            f"{name} is {limit.score:g} (target_rate {limit.target_rate}, expected_rate {limit.expected_rate}), but "
            f"the scores give {own.score:g} for the target rate {rate:g} (expected_rate {own.expected_rate})"
        )


def _check_scores(name: str, scores: list[float], groups: list[int] | None) -> None:
    if scores != sorted(scores):
        raise ValueError(f"{name} are not in ascending order")
    if groups is not None and len(groups) != len(scores):
        raise ValueError(f"{name}: there are {len(scores)}, but {len(groups)} groups")


class EmbeddingOutput(Part):
    """Output `embedding` of a model: float32 (1, dim), unit length."""

    dim: Count


class PatchDistancesOutput(Part):
    """Output `patch_distances` of a model: float32 (1, rows, columns), distances to the nearest row of the patch bank.

    Position (i, j) lies on pixel (margin + stride i, margin + stride j) of the input of the network, counted without
    its margin.
    """

    rows: Count
    columns: Count
    stride: Count

    def fits(self, spec: Preprocessing) -> bool:
        """Whether the grid covers the input."""
        return 2 * spec.margin in (0, self.stride) and (self.rows, self.columns) == spec.grid(self.stride)


class PatchEmbeddingsOutput(Part):
    """Output `patch_embeddings` of a model: float32 (1, rows, columns, dim), on the grid of `patch_distances`."""

    dim: Count


class Outputs(Part):
    """The outputs of a model, by name."""

    embedding: EmbeddingOutput
    patch_distances: PatchDistancesOutput | None = Field(
        default=None, description="null: the model compares whole images only"
    )
    patch_embeddings: PatchEmbeddingsOutput | None = Field(
        default=None,
        description="on the grid of patch_distances, to learn at the line; null: whole images only, or a kit of an "
        "earlier msc-edge",
    )


class HnswIndex(Part):
    """An hnswlib index over a memory bank. The file itself stores neither space nor dimension nor ef."""

    file: FileName
    space: Literal["cosine"] = "cosine"
    m: Count
    ef_construction: Count
    ef: Count
    recall: float = Field(ge=0, le=1, description="share of the true k nearest rows found, over `queries` queries")
    queries: Count


class MemoryBank(Part):
    """Embeddings of the normal images under one model, float32 (count, dim), unit rows, and how to search them."""

    file: FileName
    count: Count
    k: Count = Field(description="the score is the mean cosine distance to the k nearest rows")
    search: Literal["exact", "hnsw"] = Field(description="default search of the runtime; both give the same scores")
    index: HnswIndex | None

    @model_validator(mode="after")
    def _k_fits(self) -> "MemoryBank":
        if self.k > self.count:
            raise ValueError(f"k {self.k} is larger than the {self.count} rows")
        return self


class PatchBank(Part):
    """Whitened patch embeddings that stand for all patches of the normal images. They are part of the model file."""

    count: Count
    dim: Count
    median_distance: PositiveFloat | None = Field(
        default=None,
        description="of the patches of the calibration images to it; null: a kit of an earlier msc-edge",
    )


class Banks(Part):
    """The memory banks of a model, by what their rows stand for."""

    images: MemoryBank = Field(description="one row for each normal image, searched with output `embedding`")
    patches: PatchBank | None = Field(default=None, description="null: the model compares whole images only")


class EarlierCalibration(Part):
    """What a kit keeps of a calibration that `msc-edge calibrate` replaced."""

    created: str = Field(description="UTC, ISO 8601")
    reason: str
    count: Count = Field(description="number of scores")
    quantiles: tuple[float, float, float, float, float] = Field(
        description="of the scores: minimum, lower quartile, median, upper quartile, maximum"
    )
    warn_rate: Rate
    reject_rate: Rate
    limits: Limits
    region_limit: Limit | None = Field(default=None, description="limit of the anomaly map; null: none")


class RegionCalibration(Part):
    """The limit of the anomaly map: parts of an image above it are regions."""

    patch_scores: list[float] = Field(
        min_length=1, description="largest values of the maps of the calibration images, in ascending order"
    )
    groups: Groups | None = Field(default=None, description=_GROUPS)
    rate: Rate = Field(description="target share of normal images with any region")
    limit: Limit = Field(description="follows from the patch scores and the rate")

    @model_validator(mode="after")
    def _limit_follows(self) -> "RegionCalibration":
        _check_scores("patch_scores", self.patch_scores, self.groups)
        if self.patch_scores[0] < 0:
            raise ValueError(f"patch_scores begin with {self.patch_scores[0]:g}, and distances are not negative")
        _check_limit("limit", self.limit, self.calibration, self.rate)
        return self

    @property
    def calibration(self) -> Calibration:
        """The patch scores, ready to give limits."""
        return Calibration(self.patch_scores, self.groups)

    @classmethod
    def of(cls, patch_scores: Calibration, *, rate: float) -> "RegionCalibration":
        """The limit for a target share in (0, 1). UsageError for other rates."""
        scores, groups = patch_scores.scores.tolist(), patch_scores.stored_groups
        return cls(patch_scores=scores, groups=groups, rate=rate, limit=patch_scores.limit(rate))


class CalibrationInfo(Part):
    """Scores of normal images, computed by this model. Limits and p-values follow from them.

    No image was compared with itself or with its group: it is not in the memory bank, or was left out in turn.
    """

    scores: list[float] = Field(min_length=1, description="in ascending order")
    groups: Groups | None = Field(default=None, description=_GROUPS)
    warn_rate: Rate = Field(description="target false-alarm rate of the warn limit")
    reject_rate: Rate = Field(description="target false-alarm rate of the reject limit")
    limits: Limits = Field(description="follow from the scores and the two rates")
    created: str | None = Field(default=None, description="UTC, ISO 8601; null: created with the kit")
    reason: str = Field(default=HELD_OUT, description="which images were scored, and why")
    history: list[EarlierCalibration] = Field(
        default=[], max_length=HISTORY_LENGTH, description="earlier calibrations, newest last"
    )

    regions: RegionCalibration | None = Field(
        default=None, description="limit of the anomaly map; null: the model compares whole images only"
    )

    @model_validator(mode="after")
    def _limits_follow(self) -> "CalibrationInfo":
        _check_scores("scores", self.scores, self.groups)
        if self.warn_rate < self.reject_rate:
            raise ValueError(f"warn_rate {self.warn_rate:g} is below reject_rate {self.reject_rate:g}")
        _check_limit("limits.warn", self.limits.warn, self.calibration, self.warn_rate)
        _check_limit("limits.reject", self.limits.reject, self.calibration, self.reject_rate)
        return self

    @property
    def calibration(self) -> Calibration:
        """The scores, ready to give p-values and limits."""
        return Calibration(self.scores, self.groups)


class Parity(Part):
    """Scores of training compared with scores of the runtime, on real images, before the kit was written."""

    images: Count
    max_score_difference: float = Field(ge=0)
    max_embedding_difference: float = Field(ge=0)
    max_patch_difference: float | None = Field(
        default=None, ge=0, description="of patch distances, relative to the limit of the map; null: no patches"
    )
    changed_verdicts: Literal[0]


class Model(Part):
    """One model of the kit with its own memory bank, calibration and limits."""

    file: FileName = Field(description="ONNX; input `image`: uint8 (1, height, width, 3), RGB, any size")
    opset: Count
    outputs: Outputs
    banks: Banks
    scoring: Scoring = Field(default=Scoring(), description="what the score is made of")
    calibration: CalibrationInfo
    parity: Parity | None = Field(default=None, description="null: not compared with training")
    quantization: Quantization | None = Field(default=None, description="null: the model computes in float32")
    agreement: Agreement | None = Field(default=None, description="null for fp32")

    @model_validator(mode="after")
    def _patches_fit(self) -> "Model":
        parts = (self.outputs.patch_distances, self.banks.patches, self.scoring.map, self.calibration.regions)
        if len({part is None for part in parts}) > 1:
            raise ValueError(
                "patch_distances, banks.patches, scoring.map and calibration.regions belong together, and some of them "
                "are missing"
            )
        embeddings, bank = self.outputs.patch_embeddings, self.banks.patches
        if embeddings and (bank is None or bank.dim != embeddings.dim):
            raise ValueError(f"patch_embeddings of {embeddings.dim} values do not fit banks.patches")
        return self

    @model_validator(mode="after")
    def _calibration_is_possible(self) -> "Model":
        low, high = self.scoring.possible_scores
        scores = self.calibration.scores
        # With kind `both`, each calibration image was standardised by the other ones; see `calibration_scores`.
        if self.scoring.kind != "both" and not (low <= scores[0] and scores[-1] <= high):
            possible = f"between {low:g} and {high:g}" if self.scoring.kind == "image" else f"{low:g} or more"
            raise ValueError(
                f"calibration.scores lie between {scores[0]:g} and {scores[-1]:g}, and scores of this model are "
                f"{possible}"
            )
        return self

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.outputs.embedding.dim

    @property
    def files(self) -> list[str]:
        """Names of the files that belong to this model."""
        bank = self.banks.images
        return [self.file, bank.file, *([bank.index.file] if bank.index else [])]
