"""Scoring with a kit, on a plain CPU, without torch.

The public names are `Detector`, `Result` and `NearestImage`:

    from msc_edge.runtime import Detector

    detector = Detector.load("kit")
    result = detector.score(frame)      # uint8 (height, width, 3), RGB
    print(result.verdict, result.score, result.p_value)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msc_edge.runtime.detector import Detector
    from msc_edge.runtime.results.result import NearestImage, Result

__all__ = ["Detector", "NearestImage", "Result"]


def __getattr__(name: str) -> object:
    # Imported when first asked for: `msc-edge --help` needs this package, and neither numpy nor onnxruntime.
    if name == "Detector":
        from msc_edge.runtime.detector import Detector  # noqa: PLC0415

        return Detector
    if name in ("NearestImage", "Result"):
        from msc_edge.runtime import result  # noqa: PLC0415

        return getattr(result, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
