"""Equal ranges for the channels of linear tensors (Nagel et al. 2019, arXiv 1906.04721, section 4).

An int8 tensor has one scale for all channels, so a channel with small values is rounded coarsely. Between two
convolutions without an activation in between, as in the inverted residual blocks of MobileNets, a channel may be
divided by a factor after the first and multiplied by it before the second: the function of the model stays the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from msc_edge.export.tensors import tensors_of

# Of the ratio of ranges. At 1 the tensors have equal ranges; at 1/2 the ranges of the weights suffer as little.
_POWER = 0.5


@dataclass
class LinearTensors:
    """Tensors that must keep the same scale in each channel, because they are added; with their convolutions."""

    names: list[str] = field(default_factory=list)
    producers: list[onnx.NodeProto] = field(default_factory=list)
    consumers: list[onnx.NodeProto] = field(default_factory=list)


def equalise(path: Path, images: Iterable[np.ndarray]) -> None:
    """Change the weights of the model `path` in place. `images`, uint8 (height, width, 3), show the ranges."""
    model = onnx.load(path)
    found = linear_tensors(model.graph)
    ranges: dict[str, np.ndarray] = {}
    for values in tensors_of(path, (name for each in found for name in each.names), images):
        for name, value in values.items():
            largest: np.ndarray = np.abs(value).max(axis=(0, 2, 3))
            ranges[name] = np.maximum(ranges[name], largest) if name in ranges else largest
    weights = {each.name: each for each in model.graph.initializer}

    def scale(name: str, factors: np.ndarray) -> None:
        values = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array((values * factors).astype(values.dtype), name))

    for tensors in found:
        of_channels = np.max([ranges[name] for name in tensors.names], axis=0)
        factors = (np.maximum(of_channels, 1e-6) / max(float(of_channels.max()), 1e-6)) ** _POWER
        for node in tensors.producers:
            scale(node.input[1], 1 / factors[:, None, None, None])
            for bias in node.input[2:]:
                scale(bias, 1 / factors)
        for node in tensors.consumers:
            depthwise = groups_of(node) > 1
            scale(node.input[1], factors[:, None, None, None] if depthwise else factors[:, None, None])
    onnx.save(model, path)


def linear_tensors(graph: onnx.GraphProto) -> list[LinearTensors]:
    """The groups of tensors that only convolutions produce, only convolutions and additions read."""
    shapes = {each.name: each.dims for each in graph.initializer}
    outputs = {each.name for each in graph.output}
    producers = {output: node for node in graph.node for output in node.output}
    first: dict[str, str] = {}  # of the tensors that are added, directly or not

    def first_of(name: str) -> str:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    for node in graph.node:
        if node.op_type == "Add":
            for name in node.input:
                first[first_of(name)] = first_of(node.output[0])
        elif node.op_type == "Conv":
            first_of(node.output[0])
    found: dict[str, LinearTensors] = {}
    unsuitable: set[str] = set()
    for name in list(first):
        tensors = found.setdefault(first_of(name), LinearTensors())
        tensors.names.append(name)
        node = producers.get(name)
        if node is None or name in outputs or node.op_type not in ("Conv", "Add"):
            unsuitable.add(first_of(name))
        elif node.op_type == "Conv":
            tensors.producers.append(node)
            if not shapes.keys() >= set(node.input[1:]):
                unsuitable.add(first_of(name))
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name not in first or node.op_type == "Add":
                continue
            found[first_of(name)].consumers.append(node)
            known = node.op_type == "Conv" and place == 0 and node.input[1] in shapes
            if not known or groups_of(node) not in (1, shapes[node.input[1]][0]):  # dense or depthwise
                unsuitable.add(first_of(name))
    return [each for key, each in found.items() if key not in unsuitable and each.producers and each.consumers]


def groups_of(convolution: onnx.NodeProto) -> int:
    """The number of groups of a convolution."""
    return next((each.i for each in convolution.attribute if each.name == "group"), 1)
