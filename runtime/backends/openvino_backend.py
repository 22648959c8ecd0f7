"""A model in OpenVINO, in float32."""

import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from msc_edge.errors import KitError, MissingExtraError, SourceError
from msc_edge.kit.model_entry import Outputs
from msc_edge.runtime.backends.interface import INPUT, ModelOutput, output_of, output_shapes
from msc_edge.runtime.backends.onnx_guard import read_model
from msc_edge.runtime.processor import usable_cores


class OpenVinoBackend:
    """A model of a kit in OpenVINO. See Backend.

    Embeddings of the fp32 model differ from onnxruntime's by 1e-6, those of an int8 model by more: OpenVINO rounds in
    other places.
    """

    def __init__(self, path: Path, *, outputs: Outputs, threads: int) -> None:
        """Open the model; `threads` compute one image, and as many images run at once as the cores allow.

        KitError when it cannot be used, MissingExtraError where OpenVINO is not installed.
        """
        if find_spec("openvino") is None:
            raise MissingExtraError(
                "the backend openvino is not installed. Install it with: pip install 'msc-edge[openvino]', "
                "or use --backend onnxruntime"
            )
        import openvino  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (an extra)

        model = read_model(path)
        cores = usable_cores()
        try:
            core = openvino.Core()
            self._model = core.compile_model(
                core.read_model(model),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",  # the default is bf16 where the processor has it
                    "INFERENCE_NUM_THREADS": max(cores, threads),
                    "NUM_STREAMS": max(1, cores // threads),
                },
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise KitError(f"{path.name}: OpenVINO cannot open it ({reason}); use --backend onnxruntime") from error
        self._of_thread = threading.local()
        shapes = output_shapes(outputs)
        ports = {each.any_name: each.partial_shape for each in (*self._model.inputs, *self._model.outputs)}
        if set(ports) != {INPUT, *shapes} or not all(
            ports[name].compatible(openvino.PartialShape(shape)) for name, shape in shapes.items()
        ):
            found = ", ".join(f"{name} {shape}" for name, shape in ports.items())
            raise KitError(f"{path.name}: expected {INPUT} and {shapes}, found {found}; export the kit again")
        self._file, self._shapes = path.name, shapes

    def run(self, image: np.ndarray) -> ModelOutput:
        """See Backend."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._model.create_infer_request()
        try:
            results = self._of_thread.request.infer({INPUT: image[None]})
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            size = f"{image.shape[1]}x{image.shape[0]} pixels"
            raise SourceError(f"the model cannot process an image of {size} ({reason})") from error
        # Copies: the request writes its next result into the same memory.
        return output_of(self._file, self._shapes, [results[name].copy() for name in self._shapes])
