"""The values of tensors inside an exported model."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort

from msc_edge.runtime.backends.interface import INPUT
from msc_edge.runtime.processor import usable_cores


def tensors_of(model: Path, names: Iterable[str], images: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """For each image, uint8 (height, width, 3): the values of the tensors `names` of a model, by name."""
    names = sorted(set(names))
    if not names:  # onnxruntime would compute all outputs
        return
    graph = onnx.load(model)
    known = {each.name for each in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    with TemporaryDirectory(prefix="msc-edge-tensors-", ignore_cleanup_errors=True) as scratch:
        path = Path(scratch, "model.onnx")
        onnx.save(graph, path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for image in images:
            values = session.run(names, {INPUT: image[None]})
            yield dict(zip(names, map(np.asarray, values), strict=True))
