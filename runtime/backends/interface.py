"""What the detector needs of a backend, and how backends are named."""

from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np

BackendName = Literal["onnxruntime", "openvino"]
BackendChoice = Literal["auto", "onnxruntime", "openvino"]

INPUT = "image"
EMBEDDING = "embedding"


class Backend(Protocol):
    """An open model. Safe to use from several threads."""

    def embed(self, image: np.ndarray) -> np.ndarray:
        """Unit embedding, float32 (dim,), of an image, uint8 (height, width, 3), RGB.

        Raises MemoryError, and SourceError when the model cannot process an image of this size.
        """
        ...


def installed_backends() -> tuple[BackendName, ...]:
    """The backends that are installed."""
    return ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",)
