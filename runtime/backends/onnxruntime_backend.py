"""A model in onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from msc_edge.errors import KitError, SourceError
from msc_edge.runtime.backends.interface import EMBEDDING, INPUT
from msc_edge.runtime.backends.onnx_guard import refuse_external_data

# onnxruntime otherwise reports each session to its vendor.
ort.disable_telemetry_events()


class OnnxRuntimeBackend:
    """An onnxruntime session over a model of a kit. See Backend."""

    def __init__(self, path: Path, *, dim: int, threads: int) -> None:
        """Open the model; `threads` compute one image. KitError when it cannot be used."""
        refuse_external_data(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Spinning threads burn half a core at 10 images a second, and slow down when another process needs the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no public base class
            reason = str(error).strip().splitlines()[0]
            raise KitError(f"{path.name}: onnxruntime cannot open it ({reason}); export the kit again") from error
        self._dim = dim
        self._check_signature(path.name)

    def _check_signature(self, name: str) -> None:
        inputs = [(each.name, each.type, len(each.shape)) for each in self._session.get_inputs()]
        outputs = [(each.name, each.type, each.shape) for each in self._session.get_outputs()]
        if inputs != [(INPUT, "tensor(uint8)", 4)] or outputs != [(EMBEDDING, "tensor(float)", [1, self._dim])]:
            raise KitError(
                f"{name}: expected uint8 '{INPUT}' (1, height, width, 3) and float '{EMBEDDING}' (1, {self._dim}), "
                f"found {inputs} and {outputs}; export the kit again"
            )

    def embed(self, image: np.ndarray) -> np.ndarray:
        """See Backend."""
        try:
            return self._session.run([EMBEDDING], {INPUT: image[None]})[0][0]  # pyright: ignore[reportIndexIssue, reportReturnType]
        except Exception as error:  # onnxruntime's exceptions have no public base class
            reason = str(error)
            size = f"{image.shape[1]}x{image.shape[0]} pixels"
            if "allocate memory" in reason or "bad_alloc" in reason or "bad allocation" in reason:
                raise MemoryError(f"an image of {size}") from error
            first_line = reason.strip().splitlines()[0]
            raise SourceError(f"the model cannot process an image of {size} ({first_line})") from error
