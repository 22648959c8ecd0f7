"""An int8 model by static quantisation with onnxruntime's tool, in the form that its kernels fuse."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from msc_edge.export.equalization import equalise, groups_of
from msc_edge.export.rounding import Rounding
from msc_edge.kit.quantization import Target
from msc_edge.runtime.backends.interface import INPUT

Images = Callable[[], Iterator[np.ndarray]]
"""Yields decoded images, uint8 (height, width, 3). A call decodes them again, so that few are in memory at once."""

_ACTIVATIONS = frozenset({"Clip", "Relu"})
_PRODUCTS = frozenset({"MatMul", "Gemm"})
_MEANS = frozenset({"GlobalAveragePool", "ReduceMean"})  # the last of them pools the features of the backbone


class Quantizer:
    """Makes int8 models from one fp32 model. Chosen layers stay in float.

    Quantisation is static, in QDQ form, with a weight scale per channel. On x86 activations are uint8 and weights int8
    (U8S8): onnxruntime fuses every convolution of that form, but few with S8S8. Without VNNI the weights have seven
    bits, because sums of eight-bit products overflow. The channels of linear tensors get more equal ranges before, and
    weights are rounded so that outputs change least. Preprocessing, pooling and the final normalisation stay in float.
    So does the patch head but for its matrix products, whose results are float: a patch distance is a small difference
    of large numbers.
    """

    def __init__(self, model: Path, images: Images, *, target: Target, scratch: Path) -> None:
        """`images` set the ranges and the rounding; they are decoded three times. `scratch`: for temporary files."""
        self._images, self._target = images, target
        self._ready, self._ranges = scratch / "ready.onnx", scratch / "ranges.json"
        # Symbolic shape inference fails on the Expand node of the normalisation.
        quant_pre_process(str(model), str(self._ready), skip_symbolic_shape=True)
        equalise(self._ready, images())
        self._rounding = Rounding(self._ready, images())
        nodes = onnx.load(self._ready).graph.node
        activations = {node.input[0]: node.name for node in nodes if node.op_type in _ACTIVATIONS}
        self.layers = {
            node.input[1]: [node.name] + [activations[output] for output in node.output if output in activations]
            for node in nodes
            if node.op_type == "Conv"
        }
        """The nodes of each layer, convolution and activation, by the name of its weights; in order."""
        self.stem = [] if target == "arm64" else _float_stem([node for node in nodes if node.op_type == "Conv"])
        """The first layers, if float is as fast for them on the target: the first ones to stay in float."""
        first_convolution, _ = next(iter(self.layers.items()))
        inside = _between(nodes, first_convolution)
        behind = next(place for place, node in enumerate(nodes) if first_convolution in node.input)
        inside |= {node.name for node in nodes[behind:] if node.op_type in _PRODUCTS}  # of the patch head
        self._outside = [node.name for node in nodes if node.name not in inside]

    def write(self, path: Path, *, float_layers: Sequence[str] = ()) -> None:
        """Write the int8 model to `path`; `float_layers`, keys of `layers`, stay in float."""
        arm = self._target == "arm64"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # the tool logs every image
        try:
            quantize_static(
                str(self._ready),
                str(path),
                None if self._ranges.exists() else _Reader(self._images()),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if arm else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=self._target == "x86",
                nodes_to_exclude=[*self._outside, *(node for layer in float_layers for node in self.layers[layer])],
                calibration_cache_path=self._ranges,  # computed once
                extra_options={"OpTypesToExcludeOutputQuantization": sorted(_PRODUCTS)},
            )
        finally:
            root.setLevel(level)
        self._rounding.apply(path)
        if float_layers:
            model = onnx.load(path)
            _keep_in_float(model.graph, {self.layers[layer][0] for layer in float_layers})
            onnx.save(model, path)


def _between(nodes: Sequence[onnx.NodeProto], first_convolution: str) -> set[str]:
    """The names of the backbone's nodes: from its first convolution to what its pooling reads."""
    producers = {output: place for place, node in enumerate(nodes) for output in node.output}
    first = next(place for place, node in enumerate(nodes) if first_convolution in node.input)
    pooling = max(place for place, node in enumerate(nodes) if node.op_type in _MEANS)
    found: set[int] = set()
    waiting = [pooling]
    while waiting:
        for tensor in nodes[waiting.pop()].input:
            place = producers.get(tensor, -1)
            if place >= first and place not in found:
                found.add(place)
                waiting.append(place)
    return {nodes[place].name for place in found}


def _float_stem(convolutions: Sequence[onnx.NodeProto]) -> list[str]:
    """The first three layers, by the names of their weights, if the second is depthwise as in MobileNets; else none.

    int8 gains nothing in the first two: three input channels do not fill an int8 instruction, and a depthwise
    convolution has no long sums. The output of the third is smaller, so less data has to be quantised.
    """
    depthwise = len(convolutions) > 1 and groups_of(convolutions[1]) > 1
    return [node.input[1] for node in convolutions[:3]] if depthwise else []


def _keep_in_float(graph: onnx.GraphProto, convolutions: set[str]) -> None:
    """Give these convolutions an input with one scale per channel, all equal.

    onnxruntime quantises the weights of every convolution whose input has a single scale, even of those excluded from
    quantisation, and with one scale for the whole layer. An input with a scale per channel prevents that.
    """
    producers = {node.output[0]: node for node in graph.node}
    weights = {each.name: each for each in graph.initializer}
    for node in [node for node in graph.node if node.name in convolutions]:
        dequantize = producers.get(node.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":  # the first layer: its input is float
            continue
        channels = weights[node.input[1]].dims[1] * groups_of(node)
        inputs = [dequantize.input[0]]
        for constant in dequantize.input[1:]:
            value = onnx.numpy_helper.to_array(weights[constant])
            inputs.append(f"{node.name}_{constant}")
            graph.initializer.append(onnx.numpy_helper.from_array(np.full(channels, value), inputs[-1]))
        output = f"{node.name}_input"
        own = onnx.helper.make_node("DequantizeLinear", inputs, [output], name=f"{output}_dequantized", axis=1)
        graph.node.insert(list(graph.node).index(node), own)
        node.input[0] = output


class _Reader(CalibrationDataReader):
    def __init__(self, images: Iterator[np.ndarray]) -> None:
        self._images = images

    def get_next(self) -> dict:
        image = next(self._images, None)
        return {} if image is None else {INPUT: image[None]}
