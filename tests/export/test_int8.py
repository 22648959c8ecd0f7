from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from msc_edge.bank import Bank
from msc_edge.errors import UsageError
from msc_edge.export import int8
from msc_edge.export.int8 import Int8Rejected, agree
from msc_edge.export.onnx_model import export_onnx
from msc_edge.export.pack import export
from msc_edge.export.quantize import Quantizer
from msc_edge.kit.layout import INT8_MODEL, MODEL
from msc_edge.kit.manifest import Agreement, Manifest
from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import preset
from msc_edge.runtime import Detector
from msc_edge.train.backbones import build_backbone
from msc_edge.train.network import EmbeddingNetwork


@pytest.fixture(scope="module")
def kit(drawn_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The kit of the drawn run in both precisions; not to be changed."""
    out = tmp_path_factory.mktemp("kits") / "both.kit"
    return out, export(drawn_run, out)


def operators(model: Path, optimised: Path) -> Counter[str]:
    """Of the graph that onnxruntime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimised)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(optimised).graph.node)


def images_of(toy, seeds: range) -> list[np.ndarray]:
    return [toy.draw(seed) for seed in seeds]


class TestTheKit:
    def test_both_models_are_there_and_the_faster_one_is_preferred(self, kit):
        out, manifest = kit
        assert manifest.precisions == ("fp32", "int8")
        assert manifest.preferred == "auto"
        assert {"model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"} <= set(manifest.files)
        with Kit.open(out) as opened:
            assert opened.manifest == manifest

    def test_all_its_convolutions_are_fused(self, kit, tmp_path):
        """Some that are not would be slower than float."""
        out, manifest = kit
        found = operators(out / INT8_MODEL, tmp_path / "optimised.onnx")
        in_float = len(manifest.int8.quantization.in_float)
        assert (found["QLinearConv"], found["Conv"]) == (manifest.int8.quantization.layers - in_float, in_float)

    def test_its_bank_and_limits_are_of_its_own_embeddings(self, kit, drawn_parts):
        out, manifest = kit
        detector = Detector.load(out, threads=1, precision="int8")
        with Kit.open(out) as opened:
            rows, names = opened.embeddings("int8"), opened.normals()
            assert not np.array_equal(rows, opened.embeddings())
        for row in (0, len(names) - 1):
            found = detector.score_file(drawn_parts / names[row]).nearest_images[0]
            assert (found.row, found.distance) == (row, pytest.approx(0, abs=1e-6))
        held_out = sorted({path.name for path in drawn_parts.iterdir()} - set(names))
        scores = sorted(detector.score_file(drawn_parts / name).score for name in held_out)
        assert manifest.int8.calibration.scores == pytest.approx(scores, abs=1e-6)
        assert detector.limits == manifest.int8.calibration.limits

    def test_it_finds_what_float_finds(self, kit, toy):
        detector = Detector.load(kit[0], threads=1, precision="int8")
        good = [detector.score(image).score for image in images_of(toy, range(200, 220))]
        empty = [detector.score(toy.draw(seed, "empty")).score for seed in range(200, 220)]
        assert min(empty) > max(good)

    def test_what_it_claims_of_its_agreement_is_within_the_gates(self, kit):
        agreement = kit[1].int8.agreement
        assert (agreement.good, agreement.spoiled) == (8, 96)  # few good ones, so four copies of each kind
        assert agree(agreement)

    def test_float_is_as_without_it(self, kit, drawn_kit):
        ours, theirs = kit[1], drawn_kit[1]
        assert ours.calibration == theirs.calibration
        assert {name: ours.files[name] for name in theirs.files} == theirs.files


class TestQuantizer:
    @pytest.fixture
    def quantizer(self, drawn_kit, toy, tmp_path) -> Callable[..., Quantizer]:
        def build(target: str) -> Quantizer:
            images = images_of(toy, range(8))
            return Quantizer(drawn_kit[0] / MODEL, lambda: iter(images), target=target, scratch=tmp_path)  # pyright: ignore[reportArgumentType]

        return build

    def test_a_layer_can_be_left_in_float(self, quantizer, tmp_path):
        made = quantizer("x86-vnni")
        layer = list(made.layers)[2]
        made.write(tmp_path / "some.onnx", in_float=[layer])
        found = operators(tmp_path / "some.onnx", tmp_path / "optimised.onnx")
        assert (found["Conv"], found["QLinearConv"]) == (1, len(made.layers) - 1)

    @pytest.mark.parametrize(
        ("target", "activations", "largest_weight"),
        [
            ("x86-vnni", onnx.TensorProto.UINT8, 127),
            ("x86", onnx.TensorProto.UINT8, 64),
            ("arm64", onnx.TensorProto.INT8, 127),
        ],
    )
    def test_each_target_has_its_number_types(self, quantizer, tmp_path, target, activations, largest_weight):
        quantizer(target).write(tmp_path / "made.onnx")
        graph = onnx.load(tmp_path / "made.onnx").graph
        constants = {each.name: each for each in graph.initializer}
        outputs = {constants[node.input[2]].data_type for node in graph.node if node.op_type == "QuantizeLinear"}
        assert outputs == {activations}
        weights = [
            onnx.numpy_helper.to_array(each) for name, each in constants.items() if name.endswith("weight_quantized")
        ]
        assert {each.dtype for each in weights} == {np.dtype(np.int8)}
        assert max(int(np.abs(each.astype(int)).max()) for each in weights) == largest_weight


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Callable[[str], Path]:
    """The first layers of two backbones, with random weights."""
    scratch = tmp_path_factory.mktemp("models")
    for name, stage in (("mobilenet_v2", "features.3"), ("resnet18", "layer1")):
        backbone = build_backbone(name, stop_at=stage)
        export_onnx(EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)), scratch / f"{name}.onnx")
    return lambda name: scratch / f"{name}.onnx"


class TestTheStem:
    @pytest.mark.parametrize(
        ("name", "target", "layers"),
        [
            ("mobilenet_v2", "x86-vnni", 3),
            ("mobilenet_v2", "x86", 3),
            ("mobilenet_v2", "arm64", 0),
            ("resnet18", "x86", 0),
        ],
    )
    def test_of_a_mobilenet_three_layers_are_left_in_float_on_x86(self, models, toy, tmp_path, name, target, layers):
        quantizer = Quantizer(models(name), lambda: iter([toy.draw(0)]), target=target, scratch=tmp_path)
        assert quantizer.stem == list(quantizer.layers)[:layers]

    def test_they_are_tried_before_others_are_ranked(self, models, toy, tmp_path):
        quantizer = Quantizer(models("mobilenet_v2"), lambda: iter([toy.draw(0)]), target="x86", scratch=tmp_path)
        others, asked = list(quantizer.layers)[:2:-1], []
        attempts = int8._attempts(quantizer, lambda: asked.append(1) or others)
        assert [next(attempts), next(attempts), asked] == [[], quantizer.stem, []]
        assert next(attempts) == [*quantizer.stem, others[0]]

    def test_between_them_nothing_is_quantised(self, models, toy, tmp_path):
        quantizer = Quantizer(models("mobilenet_v2"), lambda: iter([toy.draw(0)]), target="x86-vnni", scratch=tmp_path)
        quantizer.write(tmp_path / "made.onnx", in_float=quantizer.stem)
        found = operators(tmp_path / "made.onnx", tmp_path / "optimised.onnx")
        assert (found["Conv"], found["QLinearConv"]) == (3, len(quantizer.layers) - 3)
        assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)  # behind the stem, and before the mean


class TestTheGates:
    @pytest.mark.parametrize(
        ("auroc_int8", "rank_correlation", "passes"),
        [(0.9, 0.99, True), (0.895, 1.0, True), (0.8949, 1.0, False), (0.9, 0.9899, False), (0.95, 0.99, True)],
    )
    def test_where_they_stand(self, auroc_int8, rank_correlation, passes):
        agreement = Agreement(
            good=8, spoiled=24, auroc_fp32=0.9, auroc_int8=auroc_int8, rank_correlation=rank_correlation
        )
        assert agree(agreement) is passes

    @pytest.fixture
    def _out_of_reach(self, monkeypatch) -> None:
        monkeypatch.setattr(int8, "LEAST_RANK_CORRELATION", 1.1)

    @pytest.mark.usefixtures("_out_of_reach")
    def test_where_they_do_not_hold_the_kit_has_float_alone_and_it_is_said(self, drawn_run, tmp_path):
        said: list[str] = []
        manifest = export(drawn_run, tmp_path / "out.kit", note=said.append)
        assert (manifest.int8, manifest.preferred) == (None, "fp32")
        assert not [name for name in manifest.files if "int8" in name]
        assert len(said) == 1
        assert said[0].startswith("int8 is not worth it here: with 2 of 5 layers left in float")

    @pytest.mark.usefixtures("_out_of_reach")
    def test_who_insists_is_told_and_gets_no_kit(self, drawn_run, tmp_path):
        with pytest.raises(UsageError, match=r"int8 is not worth it here: .*; export with --precision fp32"):
            export(drawn_run, tmp_path / "out.kit", precision="int8")
        assert list(tmp_path.iterdir()) == []

    def test_insisting_on_int8_makes_it_what_is_used(self, drawn_run, tmp_path):
        assert export(drawn_run, tmp_path / "out.kit", precision="int8").preferred == "int8"
        assert Detector.load(tmp_path / "out.kit", threads=1).precision == "int8"


def test_the_bank_decides_more_than_the_network(kit, toy):
    """Compared with float's bank, good parts look stranger to int8: that is why it has a bank of its own."""
    with Kit.open(kit[0]) as opened:
        banks = {precision: Bank(opened.embeddings(precision)) for precision in ("fp32", "int8")}
    embed = Detector.load(kit[0], threads=1, precision="int8").embed
    embeddings = [embed(image) for image in images_of(toy, range(300, 320))]
    own, other = (np.median([banks[name].score(each) for each in embeddings]) for name in ("int8", "fp32"))
    assert own < other


def test_not_worth_it_says_what_was_asked_for():
    agreement = Agreement(good=8, spoiled=24, auroc_fp32=0.9, auroc_int8=0.85, rank_correlation=0.95)
    text = str(Int8Rejected(agreement, in_float=2, layers=5))
    for part in ("2 of 5", "0.950", "0.99", "0.850", "0.900", "0.005"):
        assert part in text
