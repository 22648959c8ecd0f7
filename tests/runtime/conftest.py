"""Results that tests of several modules build rows, summaries and pages from."""

from collections.abc import Callable
from typing import Any

import pytest

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import NearestImage, Result


@pytest.fixture(scope="session")
def scored() -> Callable[..., ImageResult]:
    """Build the result of one scored image; keyword arguments replace fields of its `Result`."""

    def build(path: str = "a.png", *, milliseconds: float = 2.34, **fields: Any) -> ImageResult:
        values: dict[str, Any] = {
            "score": 0.1234567,
            "image_score": 0.0912346,
            "patch_score": 1.2345678,
            "p_value": 1 / 13,
            "verdict": "reject",
            "limit": 0.1,
            "regions": (AnomalousRegion(8, 9, 30, 40, 777, 1.2345678, 11, 12, 21, 22),),
            "nearest_images": (NearestImage(3, "n.png", 0.1), NearestImage(0, "o.png", 0.1469134)),
            "model": "fp32",
            "kit": "ab" * 32,
        }
        return ImageResult(path, Result(**{**values, **fields}), milliseconds)

    return build
