"""A model in onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from msc_edge.errors import KitError, SourceError
from msc_edge.kit.model_entry import Outputs
from msc_edge.runtime.backends.interface import INPUT, ModelOutput, output_of, output_shapes
from msc_edge.runtime.backends.onnx_guard import read_model

# onnxruntime otherwise reports each session to its vendor.
ort.disable_telemetry_events()

_ONLY_FATAL = 4  # onnxruntime prints its errors itself; they are reported here, with the file


class OnnxRuntimeBackend:
    """An onnxruntime session over a model of a kit. See Backend."""

    def __init__(self, path: Path, *, outputs: Outputs, threads: int) -> None:
        """Open the model; `threads` compute one image. KitError when it cannot be used."""
        model = read_model(path)
        ort.set_default_logger_severity(_ONLY_FATAL)  # memory is allocated without the logger of a session
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ONLY_FATAL
        # Otherwise bytes 4 to 7 can say that the file is in onnxruntime's own format, which nothing here checks.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Spinning threads burn half a core at 10 images a second, and slow down when another process needs the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # Without a fallback to the same provider, which prints the error to standard output first.
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        except Exception as error:  # onnxruntime's exceptions have no public base class
            reason = str(error).strip().splitlines()[0]
            raise KitError(f"{path.name}: onnxruntime cannot open it ({reason}); export the kit again") from error
        self._file, self._shapes = path.name, output_shapes(outputs)
        self._check_signature()

    def _check_signature(self) -> None:
        inputs = [(each.name, each.type, len(each.shape)) for each in self._session.get_inputs()]
        found = {each.name: (each.type, each.shape) for each in self._session.get_outputs()}
        wanted = {output: ("tensor(float)", shape) for output, shape in self._shapes.items()}
        if inputs != [(INPUT, "tensor(uint8)", 4)] or found != wanted:
            raise KitError(
                f"{self._file}: expected uint8 '{INPUT}' (1, height, width, 3) and float {self._shapes}, found "
                f"{inputs} and {found}; export the kit again"
            )

    def run(self, image: np.ndarray) -> ModelOutput:
        """See Backend."""
        try:
            computed = self._session.run(list(self._shapes), {INPUT: image[None]})
        except Exception as error:  # onnxruntime's exceptions have no public base class
            reason = str(error)
            size = f"{image.shape[1]}x{image.shape[0]} pixels"
            if "allocate memory" in reason or "bad_alloc" in reason or "bad allocation" in reason:
                raise MemoryError(f"an image of {size}") from error
            first_line = reason.strip().splitlines()[0]
            raise SourceError(f"the model cannot process an image of {size} ({first_line})") from error
        return output_of(self._file, self._shapes, computed)
