import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.kit.layout import MANIFEST, MODEL_FILES, Precision
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.model_entry import Outputs
from msc_edge.kit.opening import Kit
from msc_edge.kit.quantization import Quantization
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector
from msc_edge.runtime.backends import selection
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.runtime.backends.selection import (
    BackendSpec,
    backend_specs,
    create_backend,
    matches_check_image,
    measure_backends,
)

FLOAT, INT8, OPENVINO = BackendSpec("fp32"), BackendSpec("int8"), BackendSpec("fp32", "openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of cached measurements, apart from the one of this user. Measurements take a fraction of a second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(selection, "_SECONDS", 0.05)
    return tmp_path / "cache" / "msc-edge" / "backend"


def manifest_of(kit: Path) -> Manifest:
    return parse_manifest((kit / MANIFEST).read_bytes())


@pytest.fixture
def copy(int8_kit: Path, tmp_path: Path) -> Path:
    """A copy of the kit with two models that a test may change."""
    return shutil.copytree(int8_kit, tmp_path / "copy.kit")


def set_default(kit: Path, model: str) -> None:
    seal(kit, manifest_of(kit).model_copy(update={"default_model": model}))


def change_check_embedding(kit: Path, change: Callable[[list[float]], list[float]]) -> None:
    manifest = manifest_of(kit)
    int8 = manifest.models["int8"]
    quantization = int8.quantization
    assert isinstance(quantization, Quantization)
    changed = quantization.model_copy(update={"check_embedding": change(quantization.check_embedding)})
    int8 = int8.model_copy(update={"quantization": changed})
    seal(kit, manifest.model_copy(update={"models": {**manifest.models, "int8": int8}}))


def for_another_processor(kit: Path) -> None:
    """As if the kit had been made on a processor with other int8 arithmetic."""
    change_check_embedding(kit, lambda embedding: [*embedding[1:], embedding[0]])


class TestModel:
    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_the_requested_model_scores_with_its_own_limits(self, int8_kit, precision):
        detector = Detector.load(int8_kit, threads=1, precision=precision)
        calibration = manifest_of(int8_kit).models[precision].calibration
        assert detector.model == precision
        assert detector.limits == calibration.limits
        assert detector.calibration.scores.tolist() == calibration.scores

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_without_a_request_the_default_model_of_the_kit_scores(self, copy, precision):
        set_default(copy, precision)
        assert Detector.load(copy, threads=1).model == precision
        assert Detector.load(copy, threads=1, precision="fp32").model == "fp32"

    def test_a_kit_with_one_model_scores_with_it_and_has_no_other(self, toy_kit):
        assert Detector.load(toy_kit, threads=1).model == "fp32"
        with pytest.raises(UsageError, match="no int8 model; use fp32, or export it again with --precision both"):
            Detector.load(toy_kit, threads=1, precision="int8")

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"precision": "fp16"}, "precision is 'fp16'; expected one of fp32, int8"),
            ({"backend": "tensorrt"}, "backend is 'tensorrt'; expected one of auto, onnxruntime, openvino"),
        ],
    )
    def test_an_unknown_name_is_refused(self, int8_kit, options, reason):
        with pytest.raises(UsageError, match=reason):
            Detector.load(int8_kit, **options)


class TestNoChance:
    """Two PCs with the same kit give the same verdicts, whatever is faster on each of them."""

    @pytest.fixture
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Precision], None]:
        """Make the models of one precision take ten milliseconds longer."""

        def of(precision: Precision) -> None:
            class Slow(OnnxRuntimeBackend):
                def __init__(self, path: Path, *, outputs: Outputs, threads: int) -> None:
                    super().__init__(path, outputs=outputs, threads=threads)
                    self._delay = 0.01 if path.name == MODEL_FILES[precision] else 0

                def run(self, image: np.ndarray) -> ModelOutput:
                    time.sleep(self._delay)
                    return super().run(image)

            monkeypatch.setattr(selection, "OnnxRuntimeBackend", Slow)

        return of

    @pytest.mark.parametrize("default", ["fp32", "int8"])
    @pytest.mark.parametrize("slower", ["fp32", "int8"])
    def test_the_default_model_scores_whichever_is_slower(self, copy, slow, cache, slower, default):
        set_default(copy, default)
        slow(slower)
        assert Detector.load(copy, threads=1).model == default
        assert not cache.exists()  # nothing was measured

    @pytest.mark.parametrize("slower", ["fp32", "int8"])
    def test_a_kit_of_an_earlier_version_that_left_it_to_the_pc_scores_with_fp32(self, copy, slow, slower):
        set_default(copy, "auto")
        slow(slower)
        detector = Detector.load(copy, threads=1)
        assert detector.model == "fp32"
        assert detector.limits == manifest_of(copy).models["fp32"].calibration.limits

    @pytest.mark.parametrize("default", ["fp32", "int8"])
    def test_auto_is_deprecated_and_means_the_default_model(self, copy, default):
        set_default(copy, default)
        with pytest.warns(DeprecationWarning, match="precision='auto' is deprecated: the kit says which model scores"):
            assert Detector.load(copy, threads=1, precision="auto").model == default  # pyright: ignore[reportArgumentType]


class TestAnotherProcessor:
    """A processor with other int8 arithmetic gives scores that the limits do not fit."""

    @pytest.mark.parametrize("precision", [None, "int8"])
    def test_int8_is_refused_with_the_remedy_and_fp32_scores(self, copy, precision):
        """Not replaced: the verdicts of two PCs would differ, and nobody would know."""
        set_default(copy, "int8")
        for_another_processor(copy)
        with pytest.raises(UsageError, match=r"computes other int8 embeddings .* use --precision fp32"):
            Detector.load(copy, threads=1, precision=precision)
        assert Detector.load(copy, threads=1, precision="fp32").model == "fp32"

    def test_a_check_embedding_of_another_length_never_matches(self, copy):
        change_check_embedding(copy, lambda _: [1.0])
        with Kit.open(copy) as kit:
            assert not matches_check_image(kit, "int8", create_backend(kit, INT8, threads=1))
            assert matches_check_image(kit, "fp32", create_backend(kit, FLOAT, threads=1))


class TestOpenVino:
    """With a second backend in place of OpenVINO, which is not installed here."""

    @pytest.fixture
    def second(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Install a second backend whose embeddings differ from onnxruntime's by this factor."""

        def install(difference: float) -> None:
            class Second(OnnxRuntimeBackend):
                def run(self, image: np.ndarray) -> ModelOutput:
                    output = super().run(image)
                    changed = output.embedding + np.float32(difference) * np.roll(output.embedding, 1)
                    return replace(output, embedding=changed)

            monkeypatch.setattr(selection, "OpenVinoBackend", Second)
            monkeypatch.setattr(selection, "version", lambda _: "1.0")
            monkeypatch.setattr(selection, "installed_backends", lambda: ("onnxruntime", "openvino"))

        return install

    def test_int8_in_openvino_is_used_only_where_both_are_named(self, copy, second):
        second(0.0)
        assert backend_specs("fp32") == [FLOAT, OPENVINO]
        assert backend_specs("int8") == [INT8]
        set_default(copy, "int8")
        with pytest.raises(UsageError, match=r"scores with int8, which OpenVINO rounds differently.* name both"):
            Detector.load(copy, threads=1, backend="openvino")
        both = Detector.load(copy, threads=1, precision="int8", backend="openvino")
        assert both.spec == BackendSpec("int8", "openvino")

    @pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
    def test_the_measurement_is_cached_for_kit_machine_and_threads(self, toy_kit, cache, second, backend):
        second(0.0)
        first = Detector.load(toy_kit, threads=1).spec
        (entry,) = cache.iterdir()
        assert json.loads(entry.read_text())["backend"] == {"precision": "fp32", "name": first.name}
        entry.write_text(json.dumps({"backend": {"precision": "fp32", "name": backend}}))
        assert Detector.load(toy_kit, threads=1).spec == BackendSpec("fp32", backend)
        Detector.load(toy_kit, threads=2)
        assert len(list(cache.iterdir())) == 2

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{}",
            "[]",
            '{"backend": {"precision": "fp16"}}',
            '{"backend": {"model": "x"}}',
            '{"backend": 1}',
            '{"backend": {"precision": "int8", "name": "openvino"}}',
            "[" * 4000,
            "[" * 10**6,
        ],
        ids=lambda text: text[:30],
    )
    def test_a_damaged_cache_entry_is_replaced(self, toy_kit, cache, second, text):
        second(0.0)
        Detector.load(toy_kit, threads=1)
        (entry,) = cache.iterdir()
        entry.write_text(text)
        Detector.load(toy_kit, threads=1)
        assert json.loads(entry.read_text())["backend"]["precision"] == "fp32"

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_pipe_in_place_of_the_entry_does_not_block(self, toy_kit, cache, second):
        second(0.0)
        Detector.load(toy_kit, threads=1)
        (entry,) = cache.iterdir()
        entry.unlink()
        os.mkfifo(entry)
        Detector.load(toy_kit, threads=1)
        assert json.loads(entry.read_text())["backend"]["precision"] == "fp32"

    def test_without_a_writable_cache_each_start_measures(self, toy_kit, cache, second):
        second(0.0)
        cache.parent.mkdir(parents=True)
        cache.write_text("a file in place of the folder")
        assert Detector.load(toy_kit, threads=1).model == "fp32"

    def test_another_library_is_selected_only_for_a_gain_of_five_per_cent(self, toy_kit, second):
        second(0.0)
        with Kit.open(toy_kit) as kit:
            fastest, milliseconds = measure_backends(kit, (FLOAT, OPENVINO), threads=1)
        assert min(milliseconds[FLOAT], milliseconds[OPENVINO]) > 0
        assert fastest == (OPENVINO if milliseconds[OPENVINO] < 0.95 * milliseconds[FLOAT] else FLOAT)

    def test_a_backend_with_the_same_embeddings_is_used(self, toy_kit, second):
        second(1e-6)
        detector = Detector.load(toy_kit, threads=1, backend="openvino")
        assert detector.spec == OPENVINO
        assert str(detector.spec) == "fp32 with OpenVINO"

    def test_a_backend_with_other_embeddings_is_refused_by_name_and_left_out_by_auto(self, toy_kit, second):
        second(0.01)
        with pytest.raises(UsageError, match=r"other embeddings here than onnxruntime.* use --backend onnxruntime"):
            Detector.load(toy_kit, threads=1, backend="openvino")
        assert Detector.load(toy_kit, threads=1, backend="auto").spec == FLOAT


class TestDamage:
    @pytest.mark.parametrize("name", ["model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"])
    def test_every_file_of_the_second_model_is_verified(self, copy, change_byte, name):
        change_byte(copy / name, 100)
        with pytest.raises(KitError, match=f"{name}: SHA-256 differs"):
            Kit.open(copy)

    @pytest.mark.parametrize("name", ["model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"])
    def test_every_file_of_the_second_model_must_be_listed(self, copy, name):
        (copy / name).unlink()
        seal(copy, manifest_of(copy))
        with pytest.raises(KitError, match=f"does not list {name}"):
            Kit.open(copy)
