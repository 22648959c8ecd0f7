"""Rounding int8 weights so that outputs change least (GPTQ; Frantar et al. 2022, arXiv 2210.17323, section 3).

In the form of LDLQ (Chee et al. 2023, arXiv 2307.13304, theorem 6): the same weights without an inverse matrix.

Rounding each weight to the nearest step ignores that the inputs of a convolution are correlated: the error of one
weight can be made up for by the others. Weights are rounded one after the other, and the weights that are left are
changed by what makes up best for the error, over the inputs that images of the memory bank give. The mean of the error
goes into the bias.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from msc_edge.export.tensors import tensors_of

_DAMPING = 0.01  # of the mean variance, added to each variance
_POSITIONS = 256  # of an image, spread evenly
_MAX_INPUTS = 2304  # of an output; 256 channels of 3 x 3. The time grows with the third power


@dataclass
class Inputs:
    """Mean and covariance of the inputs of a convolution's outputs: float64 (groups, n) and (groups, n, n)."""

    mean: np.ndarray
    covariance: np.ndarray


class Rounding:
    """The rounded weights of each convolution of a float model, computed once for each."""

    def __init__(self, model: Path, images: Iterable[np.ndarray]) -> None:
        """`images`: uint8 (height, width, 3)."""
        graph = onnx.load(model).graph
        self._weights = {each.name: each for each in graph.initializer}
        self._nodes = {
            node.input[1]: node
            for node in graph.node
            if node.op_type == "Conv" and node.input[1] in self._weights
            if math.prod(self._weights[node.input[1]].dims[1:]) <= _MAX_INPUTS and not _is_dilated(node)
        }
        self._inputs = inputs_of(model, {name: (node, self._array(name)) for name, node in self._nodes.items()}, images)
        self._rounded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def apply(self, path: Path) -> None:
        """Change the weights and biases of the quantised model `path`, made from the float model, in place."""
        model = onnx.load(path)
        quantised = {each.name: each for each in model.graph.initializer}

        def replace(name: str, values: np.ndarray) -> None:
            dtype = numpy_helper.to_array(quantised[name]).dtype
            quantised[name].CopyFrom(numpy_helper.from_array(np.rint(values).astype(dtype), name))

        for name, node in self._nodes.items():
            if f"{name}_quantized" not in quantised:  # it stays in float
                continue
            scale = numpy_helper.to_array(quantised[f"{name}_scale"]).astype(np.float64)
            if name not in self._rounded:
                self._rounded[name] = self._round(name, scale)
            steps, shift = self._rounded[name]
            replace(f"{name}_quantized", steps)
            bias = node.input[2] if len(node.input) > 2 else ""
            if f"{bias}_quantized" in quantised:
                of_bias = numpy_helper.to_array(quantised[f"{bias}_quantized_scale"]).astype(np.float64)
                replace(f"{bias}_quantized", numpy_helper.to_array(quantised[f"{bias}_quantized"]) + shift / of_bias)
        onnx.save(model, path)

    def _array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self._weights[name])

    def _round(self, name: str, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights in steps of the scale, of the shape of the weights, and the mean error of each output, float64."""
        weights, inputs = self._array(name).astype(np.float64), self._inputs[name]
        groups = len(inputs.mean)
        of_groups = weights.reshape(groups, len(weights) // groups, -1)
        scales = np.broadcast_to(scale, len(weights)).reshape(groups, -1)
        steps = np.stack([rounded(*each) for each in zip(of_groups, scales, inputs.covariance, strict=True)])
        shift = np.einsum("gon,gn->go", of_groups - steps * scales[..., None], inputs.mean)
        return steps.reshape(weights.shape), shift.ravel()


def rounded(weights: np.ndarray, scale: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Weights in whole steps of the scale, float64 (outputs, n), between the largest steps that nearest rounding takes.

    `weights`: float64 (outputs, n). `scale`: (outputs,). `covariance`: of the n inputs, (n, n).
    """
    most = np.rint(np.abs(weights).max(axis=1) / scale)
    order = np.argsort(-np.diag(covariance))  # the most important first: later ones make up for them
    damped = covariance[np.ix_(order, order)] + np.eye(len(order)) * (_DAMPING * np.diag(covariance).mean() + 1e-12)
    factor = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]  # upper triangular; times its transpose: `damped`
    influence = np.ascontiguousarray((factor / np.diag(factor)).T)  # row: of earlier errors on one weight
    exact = (weights / scale[:, None])[:, order].T  # (n, outputs), as those below
    errors, steps = np.empty_like(exact), np.empty_like(exact)
    for place, wanted in enumerate(exact):
        corrected = wanted + influence[place, :place] @ errors[:place]
        steps[order[place]] = np.clip(np.rint(corrected), -most, most)
        errors[place] = wanted - steps[order[place]]
    return steps.T


def inputs_of(
    model: Path, convolutions: Mapping[str, tuple[onnx.NodeProto, np.ndarray]], images: Iterable[np.ndarray]
) -> dict[str, Inputs]:
    """What the convolutions, by any name, with their weights, read when the model computes the images."""
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, np.ndarray] = {}
    products: dict[str, np.ndarray] = {}
    for values in tensors_of(model, (node.input[0] for node, _ in convolutions.values()), images):
        for name, (node, weights) in convolutions.items():
            read = _patches(node, weights, values[node.input[0]])
            counts[name] += read.shape[1]
            sums[name] = sums.get(name, 0) + read.sum(axis=1)
            products[name] = products.get(name, 0) + read.transpose(0, 2, 1) @ read
    means = {name: total / counts[name] for name, total in sums.items()}
    return {
        name: Inputs(mean, products[name] / counts[name] - mean[:, :, None] * mean[:, None, :])
        for name, mean in means.items()
    }


def _is_dilated(node: onnx.NodeProto) -> bool:
    return any(max(each.ints) > 1 for each in node.attribute if each.name == "dilations")


def _patches(node: onnx.NodeProto, weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """What a convolution multiplies at some positions of features (1, C, h, w): float64 (groups, positions, n)."""
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
    rows, columns = given.get("strides", [1, 1])
    padded = np.pad(features[0], ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], axis=(1, 2))[:, ::rows, ::columns]
    groups, (height, width) = given.get("group", 1), windows.shape[1:3]
    chosen = np.unique(np.linspace(0, height * width - 1, _POSITIONS).round().astype(int))
    read = windows[:, chosen // width, chosen % width]  # (C, positions, kernel, kernel)
    read = read.reshape(groups, len(features[0]) // groups, len(chosen), -1)
    return read.transpose(0, 2, 1, 3).reshape(groups, len(chosen), -1).astype(np.float64)
