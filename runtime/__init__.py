"""Scoring with a kit on a plain CPU, without torch.

The public names are `Detector`, `Result`, `score_folder`, `evaluate` and `compare`:

    from msc_edge.runtime import Detector

    detector = Detector.load("kit")
    result = detector.score(frame)      # uint8 (height, width, 3), RGB; or grey, 16 bits, a list
    print(result.verdict, result.score, result.p_value)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msc_edge.runtime.batch import score_folder
    from msc_edge.runtime.detector import Detector
    from msc_edge.runtime.results.result import Result
    from msc_edge.runtime.tools.compare.run import compare
    from msc_edge.runtime.tools.evaluate.run import evaluate

__all__ = ["Detector", "Result", "compare", "evaluate", "score_folder"]

_MODULES = {
    "Detector": "msc_edge.runtime.detector",
    "Result": "msc_edge.runtime.results.result",
    "compare": "msc_edge.runtime.tools.compare.run",
    "evaluate": "msc_edge.runtime.tools.evaluate.run",
    "score_folder": "msc_edge.runtime.batch",
}


def __getattr__(name: str) -> object:
    # Imported on first use: `msc-edge --help` imports this package and needs neither numpy nor onnxruntime.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
