"""Runs over drawn images with a small random backbone, and two kits: trained and exported once."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from msc_edge.bank import Bank
from msc_edge.cli import app
from msc_edge.export import agreement, held_out_model, int8, onnx_model, run_images, tensors
from msc_edge.export.agreement import AgreementTest
from msc_edge.export.fused import proof
from msc_edge.export.onnx_model import export_onnx
from msc_edge.export.pack import export
from msc_edge.export.run_images import RunImages
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import Outputs
from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import Preprocessing, preset
from msc_edge.runtime import detector
from msc_edge.train import loading
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.dataset import read_image_table
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import TrainingOptions
from msc_edge.train.run_record import BACKBONE, BANK, IMAGE_TABLE, read_record
from msc_edge.train.training import train
from msc_edge.train.weights import load_into


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads gain nothing on images this small, and those of onnxruntime spin while they wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (agreement, detector, held_out_model, int8, proof, tensors):
            patch.setattr(module, "usable_cores", lambda: 1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _traced_once() -> Iterator[None]:
    """A trace takes two seconds: the same weights at the same size are traced once for all tests."""
    traces: dict[str, onnx.ModelProto] = {}
    trace = onnx_model._traced

    @wraps(trace)
    def traced(module: nn.Module, example: torch.Tensor, outputs: list[str]) -> onnx.ModelProto:
        digest = sha256(f"{module} {tuple(example.shape)}".encode())
        for value in module.state_dict().values():
            digest.update(value.numpy().tobytes())
        key = digest.hexdigest()
        if key not in traces:
            traces[key] = trace(module, example, outputs)
        model = onnx.ModelProto()
        model.CopyFrom(traces[key])
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_model, "_traced", traced)
        yield


@pytest.fixture(scope="session")
def random_weights() -> Callable[..., nn.Module]:
    """An untrained backbone, with statistics in its batch norm as a trained one has them."""

    def build(name: str, *, stop_at: str | None = None, seed: int = 1):
        torch.manual_seed(seed)
        backbone = build_backbone(name, stop_at=stop_at)
        for module in backbone.modules():
            if (
                isinstance(module, nn.BatchNorm2d)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        return backbone

    return build


@pytest.fixture(scope="session")
def drawn_parts(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Forty drawn images of good parts; not to be changed."""
    folder = tmp_path_factory.mktemp("line") / "good parts ü"
    for seed in range(40):
        save(folder / f"part_{seed:02d}.png", toy.draw(seed))
    return folder


@pytest.fixture(scope="session")
def train_on(tmp_path_factory: pytest.TempPathFactory, random_weights: Callable) -> Callable[..., Path]:
    """Make a run over a folder, by default without fine-tuning; gives the run folder."""
    weights = tmp_path_factory.mktemp("weights") / "resnet18_to_layer1.safetensors"
    save_file(random_weights("resnet18", stop_at="layer1").state_dict(), weights)

    def run(folder: Path, **changed) -> Path:
        out = tmp_path_factory.mktemp("run") / "run"
        quick = {
            "backbone": "resnet18",
            "weights": weights,
            "stop_at": "layer1",
            "image_size": 33,
            "scores": "image",
            "steps": 0,
            "batch": 8,
            "accelerator": "cpu",
            "dtype": "fp32",
        }
        train(folder, out, TrainingOptions(**{**quick, **changed}))
        return out

    return run


@pytest.fixture(scope="session")
def drawn_run(train_on: Callable, drawn_parts: Path) -> Path:
    """A run over the drawn parts with three steps of fine-tuning; not to be changed."""
    return train_on(drawn_parts, steps=3)


@pytest.fixture(scope="session")
def untuned_run(train_on: Callable, drawn_parts: Path) -> Path:
    """A run over the drawn parts without fine-tuning, so with other weights; not to be changed."""
    return train_on(drawn_parts)


@pytest.fixture(scope="session")
def drawn_kit(drawn_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The fp32 kit of the drawn run, not to be changed, and what `export` returned."""
    out = tmp_path_factory.mktemp("kits") / "drawn.kit"
    return out, export(drawn_run, out, precision="fp32")


@pytest.fixture(scope="session")
def export_command(drawn_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The kit of the drawn run with fp32 and int8, not to be changed, and what `msc-edge export` printed."""
    out = tmp_path_factory.mktemp("kits") / "both.kit"
    return out, CliRunner().invoke(
        app, ["export", str(drawn_run), "--out", str(out), "--name", "line-3", "--warn-rate", "0.2"]
    )


@pytest.fixture(scope="session")
def both_kit(export_command: tuple[Path, Result]) -> tuple[Path, Manifest]:
    """The kit of the drawn run with fp32 and int8, not to be changed, and its manifest."""
    with Kit.open(export_command[0]) as kit:
        return export_command[0], kit.manifest


@pytest.fixture
def images(drawn_run: Path) -> RunImages:
    """Those of the drawn run, held out once, as the gates of int8 need them."""
    return RunImages.find(read_record(drawn_run), read_image_table(drawn_run / IMAGE_TABLE)).held_out_once()


@pytest.fixture(scope="session")
def bank(drawn_run: Path) -> Bank:
    """Without the held-out images."""
    return Bank(
        np.load(drawn_run / BANK)[[image.role == "bank" for image in read_image_table(drawn_run / IMAGE_TABLE)]]
    )


@pytest.fixture(scope="session")
def outputs(drawn_kit: tuple[Path, Manifest]) -> Outputs:
    return drawn_kit[1].models["fp32"].outputs


@pytest.fixture(scope="session")
def spec(drawn_run: Path) -> Preprocessing:
    return read_record(drawn_run).preprocessing


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was decoded, by name."""
    counts: Counter[str] = Counter()
    decoded = loading.decoded

    def counted(folder: Path, names: Sequence[str], *rest, **options) -> Iterator[tuple[str, np.ndarray]]:
        for name, image in decoded(folder, names, *rest, **options):
            counts[name] += 1
            yield name, image

    monkeypatch.setattr(run_images, "decoded", counted)
    return counts


@pytest.fixture(scope="session")
def layer3_weights(tmp_path_factory: pytest.TempPathFactory, random_weights: Callable) -> Path:
    """Random weights of a ResNet-18 up to layer3, which has the strides that patches need."""
    weights = tmp_path_factory.mktemp("weights") / "resnet18_to_layer3.safetensors"
    save_file(random_weights("resnet18", stop_at="layer3").state_dict(), weights)
    return weights


@pytest.fixture(scope="session")
def patch_run(train_on: Callable, drawn_parts: Path, layer3_weights: Path) -> Path:
    """A run over the drawn parts with patches; not to be changed."""
    return train_on(drawn_parts, weights=layer3_weights, stop_at="layer3", image_size=64, scores="both", patch_rows=50)


@pytest.fixture(scope="session")
def trained_patch_kit(patch_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The fp32 kit of the run with patches, not to be changed, and what `export` returned."""
    out = tmp_path_factory.mktemp("kits") / "patches.kit"
    return out, export(patch_run, out, precision="fp32", warn_rate=0.2, reject_rate=0.1, region_rate=0.25)


@pytest.fixture
def maps_test(patch_run: Path, trained_patch_kit: tuple[Path, Manifest]) -> AgreementTest:
    """The agreement of models of the run with patches, and of their maps."""
    record = read_record(patch_run)
    return AgreementTest(
        trained_patch_kit[0] / MODEL_FILES["fp32"],
        trained_patch_kit[1].models["fp32"].outputs,
        Bank(np.load(patch_run / BANK)),
        record.preprocessing,
        RunImages.find(record, read_image_table(patch_run / IMAGE_TABLE)),
        maps=record.map,
    )


@pytest.fixture(scope="session")
def network_of() -> Callable[[Path], EmbeddingNetwork]:
    """The network of a run, in torch."""

    def load(run: Path) -> EmbeddingNetwork:
        record = read_record(run)
        backbone = build_backbone(record.backbone, stop_at=record.stop_at)
        load_into(backbone, load_file(run / BACKBONE), source=BACKBONE)
        return EmbeddingNetwork(backbone, record.preprocessing).eval()

    return load


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The path of a kit to write, in an empty folder."""
    (tmp_path / "kits").mkdir()
    return tmp_path / "kits" / "new.kit"


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first layers of a MobileNetV2 with random weights."""
    path = tmp_path_factory.mktemp("models") / "mobilenet.onnx"
    backbone = build_backbone("mobilenet_v2_x0.5", stop_at="features.2")
    export_onnx(EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)), path)
    return path
