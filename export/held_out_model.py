"""An exported model that compares an image with a part of its patch bank: the scores of images held out in turn.

It is the model of the kit, fp32 or int8, with one more input: `left_out`, float32 (rows of the patch bank,), which is
added to the squared distances to the rows. A row with a huge number is nearest to no patch.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from msc_edge.kit.model_entry import Outputs
from msc_edge.runtime.backends.interface import INPUT, ModelOutput, output_of, output_shapes
from msc_edge.runtime.processor import usable_cores

LEFT_OUT = "left_out"
_FAR = np.float32(1e30)  # squared; distances of patches are below 1e4


class HeldOutModel:
    """An open model for the images of its own patch bank."""

    def __init__(self, model: Path, outputs: Outputs, row_groups: np.ndarray) -> None:
        """`model`: an exported model. `row_groups`: the group of each row of its patch bank, int64 (rows,)."""
        self._file, self._shapes, self._row_groups = model.name, output_shapes(outputs), row_groups
        options = ort.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = 4  # its errors are raised
        changed = with_left_out(onnx.load(model), rows=len(row_groups)).SerializeToString()
        self._session = ort.InferenceSession(changed, options, providers=["CPUExecutionProvider"])

    def in_turn(self, images: Iterable[tuple[str, np.ndarray]], groups: Sequence[int]) -> Iterator[ModelOutput]:
        """The outputs of each image, without the patches of its own group; `groups`: of each image."""
        for (_, image), group in zip(images, groups, strict=True):
            feed = {INPUT: image[None], LEFT_OUT: np.where(self._row_groups == group, _FAR, np.float32(0))}
            yield output_of(self._file, self._shapes, self._session.run(list(self._shapes), feed))


def with_left_out(model: onnx.ModelProto, *, rows: int) -> onnx.ModelProto:
    """The model with the input `left_out`."""
    nodes = model.graph.node
    (nearest,) = (node for node in nodes if node.op_type == "ReduceMin")  # in `distances_to`, over the rows
    model.graph.input.append(helper.make_tensor_value_info(LEFT_OUT, TensorProto.FLOAT, [rows]))
    added = helper.make_node("Add", [nearest.input[0], LEFT_OUT], [f"{LEFT_OUT}_added"], name=f"{LEFT_OUT}_added")
    nodes.insert(list(nodes).index(nearest), added)
    nearest.input[0] = added.output[0]
    return model
