"""`model.onnx` in onnxruntime: from an image to its embedding."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from msc_edge.errors import KitError, SourceError
from msc_edge.runtime.backends.onnx_guard import refuse_external_data

# It would tell its maker of each session; a factory's PC tells nobody.
ort.disable_telemetry_events()

INPUT = "image"
OUTPUT = "embedding"


def usable_cores() -> int:
    """Cores that this process may use: its affinity and its cgroup's quota, not what the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2 here
        pass
    return cores


class OnnxRuntimeBackend:
    """An onnxruntime session over a kit's model. Safe to call from several threads."""

    def __init__(self, path: Path, *, dim: int, threads: int, spin: bool = False) -> None:
        """Open the model; KitError when it is not one that this runtime can use.

        `threads` work on one image. `spin` keeps them awake between images: a little faster on an idle machine,
        but it burns half a core at 10 images a second and is slower when another process needs the cores.
        """
        refuse_external_data(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base class
            reason = str(error).strip().splitlines()[0]
            raise KitError(f"{path.name}: onnxruntime cannot open it ({reason}); export the kit again") from error
        self._dim = dim
        self._check_signature(path.name)

    def _check_signature(self, name: str) -> None:
        inputs = [(each.name, each.type, len(each.shape)) for each in self._session.get_inputs()]
        outputs = [(each.name, each.type, each.shape) for each in self._session.get_outputs()]
        if inputs != [(INPUT, "tensor(uint8)", 4)] or outputs != [(OUTPUT, "tensor(float)", [1, self._dim])]:
            raise KitError(
                f"{name}: expected uint8 '{INPUT}' (1, height, width, 3) and float '{OUTPUT}' (1, {self._dim}), "
                f"found {inputs} and {outputs}; export the kit again"
            )

    def embed(self, image: np.ndarray) -> np.ndarray:
        """Unit embedding, float32 (dim,), of an image, uint8 (height, width, 3), RGB.

        Raises MemoryError, and SourceError when the model cannot work on an image of this size.
        """
        try:
            return self._session.run([OUTPUT], {INPUT: image[None]})[0][0]  # pyright: ignore[reportIndexIssue, reportReturnType]
        except Exception as error:  # onnxruntime's exceptions share no public base class
            reason = str(error)
            if "allocate memory" in reason or "bad_alloc" in reason or "bad allocation" in reason:
                raise MemoryError(f"an image of {image.shape[1]}x{image.shape[0]} pixels") from error
            raise SourceError(
                f"the model cannot work on an image of {image.shape[1]}x{image.shape[0]} pixels "
                f"({reason.strip().splitlines()[0]})"
            ) from error
