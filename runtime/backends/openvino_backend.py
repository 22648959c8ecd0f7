"""What computes a kit's model: onnxruntime, or OpenVINO where the extra is installed."""

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from msc_edge.errors import KitError, MissingExtraError, SourceError
from msc_edge.runtime.backends.onnx_guard import refuse_external_data
from msc_edge.runtime.backends.onnxruntime_backend import INPUT, OUTPUT, OnnxRuntimeBackend, usable_cores

BackendName = Literal["onnxruntime", "openvino"]
BackendChoice = Literal["auto", "onnxruntime", "openvino"]


class Backend(Protocol):
    """A model, opened. Safe to call from several threads."""

    def embed(self, image: np.ndarray) -> np.ndarray:
        """See OnnxRuntimeBackend.embed."""
        ...


def installed_backends() -> tuple[BackendName, ...]:
    """Those that are installed."""
    return ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",)


def opened(backend: BackendName, path: Path, *, dim: int, threads: int, spin: bool = False) -> Backend:
    """A model in one of the backends. KitError when it cannot be used, MissingExtraError when the backend is not here."""
    if backend == "openvino":
        return OpenVinoBackend(path, dim=dim, threads=threads)
    return OnnxRuntimeBackend(path, dim=dim, threads=threads, spin=spin)


class OpenVinoBackend:
    """`model.onnx` in OpenVINO, in float32: by itself it would compute in bf16 where the processor has it.

    Embeddings of the float model differ from onnxruntime's by 1e-6. Those of an int8 model differ by more, for OpenVINO
    rounds in other places.
    """

    def __init__(self, path: Path, *, dim: int, threads: int) -> None:
        """Open the model, see OnnxRuntimeBackend; as many images at once as cores allow, `threads` on each."""
        if find_spec("openvino") is None:
            raise MissingExtraError(
                "the backend openvino is not installed. Install it with: pip install 'msc-edge[openvino]', "
                "or use --backend onnxruntime"
            )
        import openvino  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (an extra)

        refuse_external_data(path)
        cores = usable_cores()
        try:
            self._model = openvino.Core().compile_model(
                str(path),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "INFERENCE_NUM_THREADS": max(cores, threads),
                    "NUM_STREAMS": max(1, cores // threads),
                },
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise KitError(f"{path.name}: OpenVINO cannot open it ({reason}); use --backend onnxruntime") from error
        self._of_thread = threading.local()
        ports = {each.any_name: each.partial_shape for each in (*self._model.inputs, *self._model.outputs)}
        if set(ports) != {INPUT, OUTPUT} or ports[OUTPUT].rank.get_length() != 2 or ports[OUTPUT][1] != dim:
            found = ", ".join(f"{name} {shape}" for name, shape in ports.items())
            raise KitError(
                f"{path.name}: expected {INPUT} and {OUTPUT} (1, {dim}), found {found}; export the kit again"
            )

    def embed(self, image: np.ndarray) -> np.ndarray:
        """See OnnxRuntimeBackend.embed."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._model.create_infer_request()
        try:
            (embedding,) = self._of_thread.request.infer({INPUT: image[None]}).values()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise SourceError(
                f"the model cannot work on an image of {image.shape[1]}x{image.shape[0]} pixels ({reason})"
            ) from error
        return embedding[0].copy()  # the request writes the next one into the same memory
