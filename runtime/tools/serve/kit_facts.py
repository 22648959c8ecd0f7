"""What a server reports about its kit: the response to GET /kit."""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from msc_edge import __version__
from msc_edge.calibration import AT_A_LIMIT, Limit, Limits
from msc_edge.formats.opencv import pixel_limit
from msc_edge.images import DecodePolicy
from msc_edge.kit.manifest import Precision
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.serve.settings import ServeSettings
from msc_edge.scoring import ScoreKind


class KitFacts(BaseModel):
    """The kit of a server, and what it accepts."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="name of the kit")
    kit: str = Field(description="SHA-256 of the manifest of the kit, as in each result")
    backbone: str = Field(description="network of the kit")
    created: str = Field(description="when the kit was made, UTC")
    model: Precision = Field(description="model of the kit that scores")
    backend: str = Field(description="library that computes the model")
    scores: ScoreKind = Field(description="what the score is made of")
    limits: Limits = Field(description=f"scores above warn need a look, scores above reject are rejected; {AT_A_LIMIT}")
    region_limit: Limit | None = Field(
        description="limit of the anomaly map: parts of an image above it are regions; null: the kit compares whole "
        "images only"
    )
    normal_images: int = Field(description="normal images in the memory bank")
    calibration_images: int = Field(description="normal images that the limits are from")
    decode: DecodePolicy = Field(description="how image files are decoded")
    heatmaps: bool = Field(description="whether /heatmap is available")
    max_bytes: int = Field(description="largest body of a request")
    max_pixels: int | None = Field(description="largest number of pixels of an image; null: no limit")
    msc_edge: str = Field(description="version of msc-edge")

    @classmethod
    def of(cls, detector: Detector, settings: ServeSettings) -> Self:
        """The facts of an open kit."""
        manifest = detector.manifest
        regions = detector.regions
        return cls(
            name=detector.kit.name,
            kit=detector.kit.sha256,
            backbone=manifest.network.backbone,
            created=manifest.provenance.created,
            model=detector.model,
            backend=detector.spec.name,
            scores=detector.scoring.kind,
            limits=detector.limits,
            region_limit=regions and regions.limit,
            normal_images=len(detector.normal_images),
            calibration_images=len(detector.calibration.scores),
            decode=manifest.decode,
            heatmaps=detector.scoring.map is not None,
            max_bytes=settings.max_bytes,
            max_pixels=int(pixel_limit()) if math.isfinite(pixel_limit()) else None,
            msc_edge=__version__,
        )
