"""The result of scoring one image."""

import math
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from msc_edge.anomaly_map import AnomalousRegion, AnomalyMap
from msc_edge.calibration import Verdict
from msc_edge.kit.manifest import Precision

# An image has a smaller distance to its own row of the memory bank (1.1e-6 in int8); two images of one part have a
# larger one.
_SAME_IMAGE = 1e-5


@dataclass(frozen=True, slots=True)
class NearestImage:
    """One of the normal images nearest to the scored image."""

    row: int
    """Row of the memory bank, and number of the thumbnail."""
    path: str
    """Path in the training folder."""
    distance: float
    """Cosine distance `1 - cos`, in [0, 2]."""


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """Score and verdict of one image. `fields.RESULT_FIELDS` describes each value and how it is written to files."""

    score: float
    image_score: float
    patch_score: float | None
    p_value: float | None
    verdict: Verdict
    limit: float
    regions: tuple[AnomalousRegion, ...]
    """Highest peak first; none for a kit that compares whole images only."""
    nearest_images: tuple[NearestImage, ...]
    """Nearest first."""
    model: Precision
    kit: str
    learned: int = 0
    learned_sha256: str | None = None
    grid_map: AnomalyMap | None = field(default=None, compare=False)
    """The anomaly map on the grid of the patches; None for a kit that compares whole images only."""
    embedding: np.ndarray | None = field(default=None, compare=False)
    """Unit embedding of the image, float32 (dim,). Files and events do not contain it."""
    anomaly_map: np.ndarray | None = field(default=None, compare=False)
    """float32 (height, width), for each pixel of the image; only on request. Files and events do not contain it.

    Interpolated from `grid_map`: its largest value is at most `patch_score`, which is that of the grid.
    """

    def __repr__(self) -> str:
        p_value = "None" if self.p_value is None else f"{self.p_value:.6g}"
        return (
            f"Result(verdict={self.verdict!r}, score={self.score:.6g}, limit={self.limit:.6g}, p_value={p_value}, "
            f"regions={len(self.regions)}, nearest={self.nearest!r}, model={self.model!r}, kit={self.kit[:12]!r})"
        )

    @property
    def score_to_limit(self) -> float | None:
        """The score divided by the limit; None where the limit is not above 0, or too small to divide by."""
        quotient = self.score / self.limit if self.limit > 0 else math.inf
        return quotient if math.isfinite(quotient) else None

    @property
    def region_limit(self) -> float | None:
        """The limit of the anomaly map: parts of the image above it are regions. Not changed by `with_limits`.

        None for a kit that compares whole images only, and for a result that was read from a file.
        """
        return None if self.grid_map is None else self.grid_map.limit

    @property
    def nearest(self) -> str:
        """Path of the nearest normal image in the training folder."""
        return self.nearest_images[0].path

    @property
    def is_in_bank(self) -> bool:
        """Whether this very image is in the memory bank: its score is then near 0, with or without a defect."""
        return self.nearest_images[0].distance < _SAME_IMAGE

    def to_dict(self) -> dict[str, Any]:
        """The fields of the result as a row of `msc-edge score` has them, for JSON: `RESULT_FIELDS`, `LATER_FIELDS`.

        Numbers have the digits of rows: six after the point, and three in `score_to_limit`.
        """
        # Imported here: both modules import this one.
        from msc_edge.runtime.results.fields import LATER_FIELDS, RESULT_FIELDS  # noqa: PLC0415
        from msc_edge.runtime.results.formats import json_values  # noqa: PLC0415

        return json_values((*RESULT_FIELDS, *LATER_FIELDS), cast("Any", self))
