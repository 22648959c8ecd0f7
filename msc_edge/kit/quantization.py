"""The part of a model's entry that only a quantised model has: how it was made, and how it compares with fp32."""

from typing import Literal

from pydantic import Field

from msc_edge.kit.part import Count, Part

MAX_LOSS = 0.003
"""Loss of AUROC and of AU-PRO below which a quantised model becomes the default model of a kit."""
MIN_HELD_OUT = 64
"""Held-out normal images from which on such a loss can be measured."""

Target = Literal["x86-vnni", "x86", "arm64"]


class Quantization(Part):
    """How a model was quantised from the fp32 model: static, QDQ, weights per channel."""

    target: Target = Field(
        description="processors the model was made for. x86-vnni: uint8 activations, int8 weights; x86: the same with "
        "7-bit weights, which do not overflow on processors without VNNI; arm64: int8 activations, int8 weights"
    )
    images: Count = Field(description="images of the memory bank that set the activation ranges")
    layers: Count = Field(description="convolutions of the backbone")
    float_layers: list[str] = Field(description="convolutions that stay in float, by the names of their weights")
    check_embedding: list[float] = Field(
        description="embedding of the check image (docs/kit-format.md). A processor that computes another embedding "
        "must not use this model"
    )
    check_patch_distances: list[float] | None = Field(
        default=None, description="patch distances of the check image, row by row; likewise. null: no patches"
    )


class MapAgreement(Part):
    """How the anomaly maps of a quantised model compare with those of the fp32 model, on the same images."""

    rank_correlation: float = Field(ge=-1, le=1, description="Spearman correlation of all values of both models' maps")
    au_pro_fp32: float = Field(ge=0, le=1, description="AU-PRO(0.3) of the fp32 maps on synthetic anomalies")
    au_pro: float = Field(ge=0, le=1, description="AU-PRO(0.3) of this model's maps")


class AccuracyLoss(Part):
    """What a quantised model loses on synthetic anomalies that are about as hard to find as real defects.

    Both models score the same images with the score of the kit. The anomalies are blended with their normal images.
    """

    normal_images: Count = Field(description="held-out normal images")
    synthetic_anomalies: Count = Field(description="faint synthetic anomalies made from them")
    strength: float = Field(
        gt=0, le=1, description="share of the anomaly in the blend, at which fp32 has an AUROC of about 0.9"
    )
    auroc_fp32: float = Field(ge=0, le=1, description="AUROC of the scores of the fp32 model")
    auroc: float = Field(ge=0, le=1, description="AUROC of the scores of this model")
    au_pro_fp32: float | None = Field(
        default=None, ge=0, le=1, description="AU-PRO(0.3) of the fp32 maps; null: the kit has no maps"
    )
    au_pro: float | None = Field(default=None, ge=0, le=1, description="AU-PRO(0.3) of the maps of this model")

    @property
    def auroc_loss(self) -> float:
        """AUROC of fp32 less that of this model."""
        return self.auroc_fp32 - self.auroc

    @property
    def au_pro_loss(self) -> float | None:
        """Likewise for AU-PRO; None: the kit has no maps."""
        return None if self.au_pro_fp32 is None or self.au_pro is None else self.au_pro_fp32 - self.au_pro

    @property
    def is_small(self) -> bool:
        """Whether this model may score in place of fp32 without being asked for."""
        return max(self.auroc_loss, self.au_pro_loss or 0.0) < MAX_LOSS


class Agreement(Part):
    """How a quantised model ranks images compared with the fp32 model."""

    normal_images: Count = Field(description="held-out normal images")
    synthetic_anomalies: Count = Field(description="synthetic anomalies made from them")
    auroc_fp32: float = Field(ge=0, le=1, description="AUROC of the fp32 scores, anomalies against normal images")
    auroc: float = Field(ge=0, le=1, description="AUROC of this model's scores")
    rank_correlation: float = Field(ge=-1, le=1, description="Spearman correlation of the image scores of both models")
    maps: MapAgreement | None = Field(default=None, description="null: the model compares whole images only")
    loss: AccuracyLoss | None = Field(
        default=None, description="null: not measured (fewer than 64 held-out images, or an earlier msc-edge)"
    )
