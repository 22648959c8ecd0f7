"""Weights are rounded so that outputs change least."""

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from msc_edge.export.quantize import Quantizer
from msc_edge.export.rounding import Rounding, inputs_of, rounded


def covariance_of(inputs: int, strength: float, seed: int = 0) -> np.ndarray:
    """Of inputs that share a part of their variance."""
    random = np.random.default_rng(seed)
    mixed = np.eye(inputs) + strength * random.normal(size=(inputs, inputs))
    return mixed @ mixed.T


def output_error(weights: np.ndarray, steps: np.ndarray, scale: np.ndarray, covariance: np.ndarray) -> float:
    """The variance of the outputs' error, summed over the outputs."""
    error = weights - steps * scale[:, None]
    return float(np.einsum("on,nm,om->", error, covariance, error))


@pytest.mark.parametrize(("strength", "gain"), [(0.1, 1.0), (0.5, 1.3), (2.0, 1.5)])
@pytest.mark.parametrize("seed", range(4))
def test_outputs_change_less_than_with_nearest_rounding(strength: float, gain: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights, scale = random.normal(size=(24, 48)), np.full(24, 0.05)
    covariance = covariance_of(48, strength, seed)
    nearest = np.rint(weights / scale[:, None])
    found = rounded(weights, scale, covariance)
    assert np.array_equal(found, np.rint(found))
    assert (np.abs(found).max(axis=1) <= np.abs(nearest).max(axis=1)).all()
    errors = [output_error(weights, steps, scale, covariance) for steps in (nearest, found)]
    assert errors[0] > gain * errors[1]


def test_inputs_that_do_not_depend_on_each_other_are_rounded_to_the_nearest_step() -> None:
    random = np.random.default_rng(0)
    weights, scale = random.normal(size=(5, 9)), random.uniform(0.01, 0.1, 5)
    found = rounded(weights, scale, np.diag(random.uniform(0.1, 2, 9)))
    assert np.array_equal(found, np.rint(weights / scale[:, None]))


def rounded_one_by_one(weights: np.ndarray, scale: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Frantar et al. 2022, equations 2 and 3: each error is made up for by the weights that are left."""
    damped = covariance + np.eye(len(covariance)) * (0.01 * np.diag(covariance).mean() + 1e-12)
    most, left, steps = np.rint(np.abs(weights).max(axis=1) / scale), weights / scale[:, None], np.empty_like(weights)
    order = np.argsort(-np.diag(covariance))
    for place, one in enumerate(order):
        steps[:, one] = np.clip(np.rint(left[:, one]), -most, most)
        of_left = np.linalg.inv(damped[np.ix_(order[place:], order[place:])])
        left[:, order[place:]] -= np.outer(left[:, one] - steps[:, one], of_left[0] / of_left[0, 0])
    return steps


@pytest.mark.parametrize("inputs", [127, 128, 129, 300])
def test_many_weights_are_rounded_as_one_after_the_other(inputs: int) -> None:
    weights, scale = np.random.default_rng(inputs).normal(size=(6, inputs)), np.full(6, 0.05)
    covariance = covariance_of(inputs, 0.5, inputs)
    found, expected = rounded(weights, scale, covariance), rounded_one_by_one(weights, scale, covariance)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("seed", range(8))
def test_few_weights_are_rounded_nearly_as_well_as_possible(seed: int) -> None:
    """Against all ways to round three weights up or down, or a step further."""
    random = np.random.default_rng(seed)
    weights, scale, covariance = random.normal(size=(1, 3)), np.array([0.3]), covariance_of(3, 1.0, seed)
    most = np.rint(np.abs(weights).max() / scale[0])
    below = np.floor(weights[0] / scale[0])
    candidates = (np.clip(below + np.array(each), -most, most) for each in itertools.product(range(-1, 3), repeat=3))
    best = min(output_error(weights, steps[None], scale, covariance) for steps in candidates)
    nearest = output_error(weights, np.clip(np.rint(weights / scale[0]), -most, most), scale, covariance)
    found = output_error(weights, rounded(weights, scale, covariance), scale, covariance)
    assert best <= found + 1e-9
    assert found <= max(2 * best, 1.1 * nearest)


def test_an_input_that_is_always_zero_is_allowed() -> None:
    covariance = covariance_of(4, 1.0)
    covariance[2] = covariance[:, 2] = 0
    found = rounded(np.ones((1, 4)), np.array([0.1]), covariance)
    assert found[0, 2] == 10


def one_convolution(path: Path, weights: np.ndarray, **attributes: Any) -> onnx.NodeProto:
    """A model of one convolution of 3 channels, at NHWC uint8 images."""
    make = onnx.helper
    nodes = [
        make.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
        make.make_node("Transpose", ["float"], ["pixels"], perm=[0, 3, 1, 2]),
        make.make_node("Conv", ["pixels", "weights"], ["out"], **attributes),
    ]
    image = make.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, "height", "width", 3])
    out = make.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    graph = make.make_graph(nodes, "one", [image], [out], [numpy_helper.from_array(weights, "weights")])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), path)
    return nodes[-1]


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((4, 3, 1, 1), {}),
        ((4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((4, 3, 3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ((6, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    ],
)
def test_the_covariance_of_the_inputs_gives_that_of_the_outputs(
    shape: tuple[int, ...], attributes: dict[str, object], tmp_path: Path
) -> None:
    """On images small enough that every position counts."""
    random = np.random.default_rng(0)
    weights = random.normal(size=shape).astype(np.float32)
    node = one_convolution(tmp_path / "model.onnx", weights, **attributes)
    images = [random.integers(0, 256, (12, 15, 3), np.uint8) for _ in range(3)]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    outputs = np.concatenate(
        [np.asarray(session.run(None, {"image": image[None]})[0])[0].reshape(len(weights), -1) for image in images], 1
    )
    found = inputs_of(tmp_path / "model.onnx", {"weights": (node, weights)}, images)["weights"]
    groups = len(found.mean)
    of_groups = weights.astype(np.float64).reshape(groups, len(weights) // groups, -1)
    np.testing.assert_allclose(
        np.einsum("gon,gn->go", of_groups, found.mean).ravel(), outputs.mean(axis=1), rtol=1e-4, atol=1e-2
    )
    variances = np.einsum("gon,gnm,gom->go", of_groups, found.covariance, of_groups).ravel()
    np.testing.assert_allclose(variances, outputs.var(axis=1), rtol=1e-3)


def test_an_int8_model_is_nearer_to_fp32_with_it(
    mobilenet: Path, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [toy.draw(seed) for seed in range(8)]

    def run(path: Path) -> np.ndarray:
        session = onnxruntime.InferenceSession(path)
        return np.stack([np.asarray(session.run(["embedding"], {"image": image[None]})[0]) for image in images])

    # Computed exactly on every processor: weights of the other targets overflow where there is no VNNI.
    quantizer = Quantizer(mobilenet, lambda: iter(images), target="x86", scratch=tmp_path)
    quantizer.write(tmp_path / "rounded.onnx")
    monkeypatch.setattr(Rounding, "apply", lambda *_: None)
    quantizer.write(tmp_path / "nearest.onnx")
    exact = run(mobilenet)
    errors = [float(np.square(run(tmp_path / name) - exact).sum()) for name in ("rounded.onnx", "nearest.onnx")]
    assert errors[0] < errors[1]
