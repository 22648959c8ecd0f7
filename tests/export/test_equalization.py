"""More equal ranges of the channels, with the same function."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from msc_edge.export.equalization import equalise, linear_tensors
from msc_edge.export.tensors import tensors_of
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.manifest import Manifest


@pytest.fixture
def unequal(mobilenet: Path, tmp_path: Path) -> Path:
    """The MobileNetV2, with channels of linear tensors whose ranges differ by a factor of a thousand."""
    model = onnx.load(mobilenet)
    weights = {each.name: each for each in model.graph.initializer}
    for tensors in linear_tensors(model.graph):
        for node in tensors.producers:
            for name in node.input[1:]:
                values = numpy_helper.to_array(weights[name]).copy()
                values[::2] *= 1000
                weights[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "unequal.onnx")
    return tmp_path / "unequal.onnx"


def spread(path: Path, images: list[np.ndarray]) -> float:
    """The largest ratio of the ranges of two channels of a linear tensor."""
    names = [name for tensors in linear_tensors(onnx.load(path).graph) for name in tensors.names]
    ranges = [
        np.max([np.abs(values[name]).max(axis=(0, 2, 3)) for values in tensors_of(path, [name], images)], axis=0)
        for name in names
    ]
    return max(float(each.max() / each[each > 0].min()) for each in ranges)


def test_the_function_stays_and_the_ranges_are_more_equal(unequal: Path, toy: ModuleType) -> None:
    images = [toy.draw(seed) for seed in range(4)]
    new = toy.draw(9)[None]
    before, was = onnxruntime.InferenceSession(unequal).run(None, {"image": new}), spread(unequal, images)
    equalise(unequal, images)
    after = onnxruntime.InferenceSession(unequal).run(None, {"image": new})
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=1e-3, atol=1e-5)
    assert spread(unequal, images) < 0.2 * was


def test_the_linear_tensors_of_a_mobilenet_are_those_between_its_blocks(mobilenet: Path) -> None:
    graph = onnx.load(mobilenet).graph
    for tensors in linear_tensors(graph):
        assert {node.op_type for node in tensors.producers + tensors.consumers} == {"Conv"}
        activations = {name for node in graph.node if node.op_type == "Clip" for name in node.input}
        assert not activations & set(tensors.names)
    assert linear_tensors(graph)


def test_a_resnet_has_none_because_its_sums_have_an_activation(drawn_kit: tuple[Path, Manifest]) -> None:
    assert linear_tensors(onnx.load(drawn_kit[0] / MODEL_FILES["fp32"]).graph) == []
