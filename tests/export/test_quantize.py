from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

from msc_edge.export.agreement import AgreementTest
from msc_edge.export.quantize import Quantizer
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.quantization import Target


def operators(model: Path, optimised: Path) -> Counter[str]:
    """Of the graph that onnxruntime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimised)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(optimised).graph.node)


@pytest.fixture
def resnet(drawn_kit: tuple[Path, Manifest]) -> Path:
    return drawn_kit[0] / MODEL_FILES["fp32"]


@pytest.fixture
def quantizer(toy: ModuleType, tmp_path: Path) -> Callable[[Path, Target], Quantizer]:
    images = [toy.draw(seed) for seed in range(4)]
    return lambda model, target: Quantizer(model, lambda: iter(images), target=target, scratch=tmp_path)


def test_all_convolutions_of_a_kit_are_fused(both_kit: tuple[Path, Manifest], tmp_path: Path) -> None:
    """Convolutions that are not fused would be slower than float."""
    quantization = both_kit[1].models["int8"].quantization
    assert quantization is not None
    found = operators(both_kit[0] / MODEL_FILES["int8"], tmp_path / "optimised.onnx")
    in_float = len(quantization.float_layers)
    assert (found["QLinearConv"], found["Conv"]) == (quantization.layers - in_float, in_float)


def test_a_layer_can_stay_in_float(quantizer: Callable, resnet: Path, tmp_path: Path) -> None:
    made = quantizer(resnet, "x86-vnni")
    made.write(tmp_path / "made.onnx", float_layers=[list(made.layers)[2]])
    found = operators(tmp_path / "made.onnx", tmp_path / "optimised.onnx")
    assert (found["Conv"], found["QLinearConv"]) == (1, len(made.layers) - 1)


@pytest.mark.parametrize(
    ("target", "activations", "largest_weight"),
    [
        ("x86-vnni", onnx.TensorProto.UINT8, 127),
        ("x86", onnx.TensorProto.UINT8, 64),
        ("arm64", onnx.TensorProto.INT8, 127),
    ],
)
def test_each_target_has_its_number_types(
    target: Target, activations: int, largest_weight: int, quantizer: Callable, resnet: Path, tmp_path: Path
) -> None:
    quantizer(resnet, target).write(tmp_path / "made.onnx")
    graph = onnx.load(tmp_path / "made.onnx").graph
    constants = {each.name: each for each in graph.initializer}
    outputs = {constants[node.input[2]].data_type for node in graph.node if node.op_type == "QuantizeLinear"}
    assert outputs == {activations}
    weights = [
        onnx.numpy_helper.to_array(each) for name, each in constants.items() if name.endswith("weight_quantized")
    ]
    assert {each.dtype for each in weights} == {np.dtype(np.int8)}
    assert max(int(np.abs(each.astype(int)).max()) for each in weights) == largest_weight


@pytest.mark.parametrize(("target", "layers"), [("x86-vnni", 3), ("x86", 3), ("arm64", 0)])
def test_the_stem_of_a_mobilenet_has_three_layers_on_x86(
    target: Target, layers: int, quantizer: Callable, mobilenet: Path
) -> None:
    made = quantizer(mobilenet, target)
    assert made.stem == list(made.layers)[:layers]
    assert len(made.layers) == 6


def test_a_resnet_has_no_stem(quantizer: Callable, resnet: Path) -> None:
    assert quantizer(resnet, "x86").stem == []


def test_nothing_is_quantised_within_a_stem_in_float(quantizer: Callable, mobilenet: Path, tmp_path: Path) -> None:
    made = quantizer(mobilenet, "x86-vnni")
    made.write(tmp_path / "made.onnx", float_layers=made.stem)
    found = operators(tmp_path / "made.onnx", tmp_path / "optimised.onnx")
    assert (found["Conv"], found["QLinearConv"]) == (3, len(made.layers) - 3)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)  # behind the stem, and before the mean


def test_images_are_decoded_for_the_first_model_only(resnet: Path, toy: ModuleType, tmp_path: Path) -> None:
    calls = []
    quantizer = Quantizer(resnet, lambda: iter(calls.append(1) or [toy.draw(0)]), target="x86", scratch=tmp_path)
    quantizer.write(tmp_path / "one")
    decoded = len(calls)
    quantizer.write(tmp_path / "two")
    assert len(calls) == decoded == 3  # equal ranges, rounding, activation ranges
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.fixture(scope="module")
def int8_with_patches(
    trained_patch_kit: tuple[Path, Manifest], toy: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The model of the kit with patches in int8; not to be changed."""
    folder = tmp_path_factory.mktemp("int8")
    images = [toy.draw(seed) for seed in range(16)]
    fp32 = trained_patch_kit[0] / MODEL_FILES["fp32"]
    Quantizer(fp32, lambda: iter(images), target="x86-vnni", scratch=folder).write(folder / "made.onnx")
    return folder / "made.onnx"


@pytest.mark.slow
def test_the_matrix_products_of_the_patch_head_are_fused_with_float_results(
    trained_patch_kit: tuple[Path, Manifest], int8_with_patches: Path, tmp_path: Path
) -> None:
    found = operators(int8_with_patches, tmp_path / "optimised.onnx")
    before = operators(trained_patch_kit[0] / MODEL_FILES["fp32"], tmp_path / "before.onnx")
    # One projection for each of two taps, and the search.
    assert (found["MatMulIntegerToFloat"], found["QGemm"], found["Gemm"]) == (2, 1, 0)
    assert found["MatMul"] == before["MatMul"] - 2


@pytest.mark.slow
def test_int8_maps_agree_although_their_products_are_int8(
    maps_test: AgreementTest, trained_patch_kit: tuple[Path, Manifest], int8_with_patches: Path
) -> None:
    int8 = maps_test.open(int8_with_patches)
    maps = maps_test.agreement(int8).maps
    assert maps is not None
    assert 0.95 < maps.rank_correlation < 1
    fp32 = maps_test.open(trained_patch_kit[0] / MODEL_FILES["fp32"])
    assert maps_test.error(fp32) == 0 < maps_test.error(int8) < 0.5
