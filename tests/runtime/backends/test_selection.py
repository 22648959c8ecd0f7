import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.errors import KitError, UsageError
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.opening import Kit, seal
from msc_edge.preprocessing import Region, preset
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.selection import (
    BackendSpec,
    check_image,
    create_backend,
    matches_check_embedding,
    measured,
)
from msc_edge.runtime.tools.verify import verify

FLOAT, INT8 = BackendSpec("fp32"), BackendSpec("int8")


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a machine remembers what was faster, apart from that of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "msc-edge" / "precision"


def manifest_of(kit: Path) -> Manifest:
    return parse_manifest((kit / MANIFEST).read_bytes())


def prefer(kit: Path, choice: str) -> None:
    seal(kit, manifest_of(kit).model_copy(update={"preferred": choice}))


def with_another_check(kit: Path) -> None:
    """As if the kit had been made where int8 adds up otherwise."""
    manifest = manifest_of(kit)
    assert manifest.int8 is not None
    how = manifest.int8.quantization
    turned = [*how.check[1:], how.check[0]]
    int8 = manifest.int8.model_copy(update={"quantization": how.model_copy(update={"check": turned})})
    seal(kit, manifest.model_copy(update={"int8": int8}))


@pytest.fixture
def changed(int8_kit: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(int8_kit, tmp_path / "changed.kit")


class TestWhichModelIsUsed:
    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_the_one_that_is_asked_for_with_its_own_limits(self, int8_kit, precision):
        detector = Detector.load(int8_kit, threads=1, precision=precision)
        calibration = manifest_of(int8_kit).calibration_of(precision)
        assert detector.precision == precision
        assert detector.limits == calibration.limits
        assert detector.calibration.scores.tolist() == calibration.scores

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_the_one_that_the_kit_prefers(self, changed, precision):
        prefer(changed, precision)
        assert Detector.load(changed, threads=1).precision == precision
        assert Detector.load(changed, threads=1, precision="fp32").precision == "fp32"

    def test_a_kit_of_float_alone_is_float_whatever_is_faster(self, toy_kit):
        assert Detector.load(toy_kit, threads=1, precision="auto").precision == "fp32"
        with pytest.raises(UsageError, match="no int8 model; use fp32, or export it again with --precision both"):
            Detector.load(toy_kit, threads=1, precision="int8")

    def test_a_name_that_is_none(self, int8_kit):
        with pytest.raises(UsageError, match="precision is 'fp16'; expected one of auto, fp32, int8"):
            Detector.load(int8_kit, precision="fp16")  # pyright: ignore[reportArgumentType]

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_the_command_line_says_which_it_was(self, int8_kit, toy_kit, photos, precision):
        one = CliRunner().invoke(app, ["score", str(int8_kit), str(photos), "--precision", precision])
        assert f"model: {precision}, one of two" in one.stderr
        limits = manifest_of(int8_kit).calibration_of(precision).limits
        assert f"reject     score above {limits.reject.score:.6f}" in one.stderr
        assert "model:" not in CliRunner().invoke(app, ["score", str(toy_kit), str(photos)]).stderr


class TestAuto:
    def test_what_was_measured_is_remembered_for_this_kit_and_machine(self, int8_kit, memory):
        first = Detector.load(int8_kit, threads=1, precision="auto").precision
        (known,) = memory.iterdir()
        assert json.loads(known.read_text())["way"]["precision"] == first
        other = {"fp32": "int8", "int8": "fp32"}[first]
        known.write_text(json.dumps({"way": {"precision": other, "backend": "onnxruntime"}}))
        assert Detector.load(int8_kit, threads=1, precision="auto").precision == other
        Detector.load(int8_kit, threads=2, precision="auto")
        assert len(list(memory.iterdir())) == 2  # another number of threads is another question

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{}",
            "[]",
            '{"way": {"precision": "fp16"}}',
            '{"way": {"backend": "x"}}',
            '{"way": 1}',
            "[" * 4000,
            "[" * 10**6,
        ],
        ids=lambda text: text[:30],
    )
    def test_a_damaged_memory_is_measured_anew(self, int8_kit, memory, text):
        Detector.load(int8_kit, threads=1, precision="auto")
        (known,) = memory.iterdir()
        known.write_text(text)
        Detector.load(int8_kit, threads=1, precision="auto")
        assert json.loads(known.read_text())["way"]["precision"] in ("fp32", "int8")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such thing here")
    def test_what_is_no_file_is_not_waited_for(self, int8_kit, memory):
        Detector.load(int8_kit, threads=1, precision="auto")
        (known,) = memory.iterdir()
        known.unlink()
        os.mkfifo(known)
        Detector.load(int8_kit, threads=1, precision="auto")
        assert json.loads(known.read_text())["way"]["precision"] in ("fp32", "int8")

    def test_where_nothing_can_be_remembered_it_works_all_the_same(self, int8_kit, memory):
        memory.parent.mkdir(parents=True)
        memory.write_text("a file in the place of the folder")
        assert Detector.load(int8_kit, threads=1, precision="auto").precision in ("fp32", "int8")

    def test_both_are_measured(self, int8_kit):
        with Kit.open(int8_kit) as kit:
            faster, took = measured(kit, (FLOAT, INT8), threads=1)
        assert took[FLOAT] > 0
        assert took[INT8] > 0
        assert faster == (INT8 if took[INT8] < 0.95 * took[FLOAT] else FLOAT)


class TestAnotherProcessor:
    """One whose sums of int8 products differ would give scores that the limits were not made for."""

    def test_auto_takes_float(self, changed):
        with_another_check(changed)
        assert Detector.load(changed, threads=1, precision="auto").precision == "fp32"

    def test_int8_is_refused_where_it_is_asked_for(self, changed):
        with_another_check(changed)
        with pytest.raises(UsageError, match=r"adds up otherwise .* use --precision fp32"):
            Detector.load(changed, threads=1, precision="int8")

    def test_the_kit_is_whole_all_the_same(self, changed, int8_kit):
        with Kit.open(int8_kit) as kit:
            assert "the int8 model opens" in verify(kit)
        with_another_check(changed)
        with Kit.open(changed) as kit:
            assert "the int8 model opens, but is NOT for this processor" in verify(kit)

    def test_a_check_of_another_length_is_none(self, changed):
        manifest = manifest_of(changed)
        assert manifest.int8 is not None
        how = manifest.int8.quantization.model_copy(update={"check": [1.0]})
        seal(changed, manifest.model_copy(update={"int8": manifest.int8.model_copy(update={"quantization": how})}))
        with Kit.open(changed) as kit:
            assert not matches_check_embedding(kit, create_backend(kit, INT8, threads=1))


def test_the_check_image_is_as_the_format_says():
    image = check_image(preset("whole-frame"))
    assert (image.shape, image.dtype) == ((96, 128, 3), np.uint8)
    for y, x in ((0, 0), (5, 7), (95, 127), (40, 100)):
        assert image[y, x].tolist() == [(2 * x + y) % 256, x * y // 16 % 256, 255 if (x // 8 + y // 8) % 2 else 0]
    region = Region(x=100, y=50, width=300, height=200)
    assert check_image(preset("whole-frame", region=region)).shape == (250, 400, 3)


class TestDamage:
    @pytest.mark.parametrize("name", ["model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"])
    def test_every_file_of_int8_is_verified(self, changed, change_byte, name):
        change_byte(changed / name, 100)
        with pytest.raises(KitError, match=f"{name}: SHA-256 differs"):
            Kit.open(changed)

    @pytest.mark.parametrize("name", ["model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"])
    def test_none_of_them_may_be_left_out(self, changed, name):
        (changed / name).unlink()
        seal(changed, manifest_of(changed))
        with pytest.raises(KitError, match=f"does not list {name}"):
            Kit.open(changed)

    @pytest.mark.parametrize(
        ("update", "reason"),
        [({"int8": None, "preferred": "int8"}, "preferred is int8"), ({"preferred": "fp16"}, "preferred")],
    )
    def test_a_preference_that_cannot_be(self, changed, update, reason):
        seal(changed, manifest_of(changed).model_copy(update=update))
        with pytest.raises(KitError, match=reason):
            Kit.open(changed)

    def test_banks_of_two_sizes(self, changed):
        manifest = manifest_of(changed)
        assert manifest.int8 is not None
        bank = manifest.int8.bank.model_copy(update={"count": manifest.bank.count + 1})
        seal(changed, manifest.model_copy(update={"int8": manifest.int8.model_copy(update={"bank": bank})}))
        with pytest.raises(KitError, match="another size"):
            Kit.open(changed)
