"""An exported model that compares an image with a part of its patch bank: the scores of images held out in turn.

It is the model of the kit, fp32 or int8, whose patch bank has the substitutes as further rows, with one more input:
`left_out`, float32 (rows and substitutes,), which is added to the squared distances to them. A row with a huge number
is nearest to no patch.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from msc_edge.kit.model_entry import Outputs
from msc_edge.runtime.backends.interface import INPUT, ModelOutput, output_of, output_shapes
from msc_edge.runtime.processor import usable_cores
from msc_edge.train.patches.head import PatchHead

LEFT_OUT = "left_out"
_FAR = np.float32(1e30)  # squared; distances of patches are below 1e4
_INT8 = 127


class HeldOutModel:
    """An open model for the images of its own patch bank."""

    def __init__(self, model: Path, outputs: Outputs, head: PatchHead) -> None:
        """`model`: exported with this head."""
        self._file, self._shapes = model.name, output_shapes(outputs)
        self._bank_groups = head.bank_groups.numpy()
        self._replaced = head.substitute_replaced.numpy()
        options = ort.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = 4  # its errors are raised
        changed = _with_left_out(onnx.load(model), rows=len(head.bank), further=head.substitutes.numpy())
        self._session = ort.InferenceSession(changed.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def in_turn(self, images: Iterable[tuple[str, np.ndarray]], groups: Sequence[int]) -> Iterator[ModelOutput]:
        """The outputs of each image, without the patches of its own group; `groups`: of each image."""
        for (_, image), group in zip(images, groups, strict=True):
            left_out = np.concatenate([self._bank_groups == group, self._replaced != group])
            feed = {INPUT: image[None], LEFT_OUT: np.where(left_out, _FAR, np.float32(0))}
            yield output_of(self._file, self._shapes, self._session.run(list(self._shapes), feed))


def _with_left_out(model: onnx.ModelProto, *, rows: int, further: np.ndarray) -> onnx.ModelProto:
    """The model with the input `left_out` and with further rows in its patch bank, float32 (n, dim)."""
    graph = model.graph
    (nearest,) = (node for node in graph.node if node.op_type == "ReduceMin")  # in `distances_to`, over the rows
    (product,) = (node for node in graph.node if node.output[0] == nearest.input[0])
    weights = -2 * further.T
    if any(node.op_type == "DequantizeLinear" and node.output[0] == product.input[1] for node in graph.node):
        scale = np.abs(weights).max(axis=0, initial=1e-12) / _INT8  # as the rows of the bank are quantised
        weights = np.round(weights / scale) * scale
    graph.input.append(helper.make_tensor_value_info(LEFT_OUT, TensorProto.FLOAT, [rows + len(further)]))
    constants = {"weights": weights, "squares": np.square(further).sum(axis=1)}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), f"{LEFT_OUT}_{name}"))
    names = [f"{LEFT_OUT}_{part}" for part in ("further", "all", "added")]
    added = [
        helper.make_node("Gemm", [product.input[0], *(f"{LEFT_OUT}_{name}" for name in constants)], [names[0]]),
        helper.make_node("Concat", [product.output[0], names[0]], [names[1]], axis=1),
        helper.make_node("Add", [names[1], LEFT_OUT], [names[2]]),
    ]
    place = list(graph.node).index(nearest)
    for number, node in enumerate(added):
        node.name = node.output[0]
        graph.node.insert(place + number, node)
    nearest.input[0] = names[2]
    return model
