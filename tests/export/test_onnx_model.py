from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from msc_edge.export import onnx_model
from msc_edge.export.onnx_model import OPSET, export_onnx
from msc_edge.kit.model_entry import EmbeddingOutput, Outputs
from msc_edge.preprocessing import Preprocessing, Region, preset
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.train.network import EmbeddingNetwork

SIZES = [(480, 640), (1080, 1920), (1, 1), (37, 501), (501, 37), (225, 224), (2, 3)]
REGION = Region(x=11, y=3, width=21, height=17)

CASES: dict[str, tuple[str, str | None, Preprocessing]] = {
    "whole-frame": ("resnet18", "layer1", preset("whole-frame", image_size=33)),
    "paper": ("resnet18", "layer1", preset("paper", image_size=33)),
    "whole-frame, region": ("resnet18", "layer1", preset("whole-frame", image_size=33, region=REGION)),
    "squeeze-and-excitation": ("mobilenet_v3_small", "features.1", preset("whole-frame", image_size=33)),
}


@dataclass(frozen=True)
class Exported:
    network: EmbeddingNetwork
    path: Path
    runtime: OnnxRuntimeBackend


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, random_weights: Callable, tmp_path_factory) -> Exported:
    name, stop_at, spec = CASES[request.param]
    network = EmbeddingNetwork(random_weights(name, stop_at=stop_at), spec).eval()
    with torch.no_grad():
        dim = network(torch.zeros(1, 40, 40, 3, dtype=torch.uint8)).shape[1]
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(network, path)
    return Exported(
        network, path, OnnxRuntimeBackend(path, outputs=Outputs(embedding=EmbeddingOutput(dim=dim)), threads=1)
    )


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """An image without detail: a resize that is off by a pixel would change half of its embedding."""
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return (255 * np.stack([rows, columns, rows * columns], axis=2)).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("draw", [noise, smooth])
def test_onnxruntime_gives_the_embedding_of_torch_at_any_size(draw, size: tuple[int, int], exported: Exported) -> None:
    image = draw(*size)
    region = exported.network.preprocess.spec.region
    if region and not region.fits(height=size[0], width=size[1]):
        image = np.ascontiguousarray(np.pad(image, ((region.y, region.height), (region.x, region.width), (0, 0))))
    with torch.no_grad():
        expected = exported.network(torch.from_numpy(image)[None])[0].numpy()
    embedding = exported.runtime.run(image).embedding
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert np.abs(embedding - expected).max() < 1e-5


def test_the_model_is_one_valid_file_with_the_inputs_and_outputs_of_the_contract(exported: Exported) -> None:
    model = onnx.load(exported.path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    (image,), (embedding,) = model.graph.input, model.graph.output
    assert (image.name, image.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    batch, height, width, channels = image.type.tensor_type.shape.dim
    assert (batch.dim_value, channels.dim_value) == (1, 3)
    assert height.dim_param
    assert width.dim_param
    assert height.dim_param != width.dim_param
    assert (embedding.name, embedding.type.tensor_type.elem_type) == ("embedding", onnx.TensorProto.FLOAT)


def test_exporting_leaves_the_network_as_it_was_and_the_same_network_gives_the_same_file(
    random_weights: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, stop_at, spec = CASES["squeeze-and-excitation"]
    network = EmbeddingNetwork(random_weights(name, stop_at=stop_at), spec)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    export_onnx(network, tmp_path / "one.onnx")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    monkeypatch.setattr(onnx_model, "_traced", onnx_model._traced.__wrapped__)  # pyright: ignore[reportFunctionMemberAccess]
    export_onnx(network, tmp_path / "two.onnx")  # traced again
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
