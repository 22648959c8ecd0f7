"""`msc-edge fuse` and `export --single-file`: onnxruntime alone gives what the kit gives."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.errors import KitError
from msc_edge.export.fused.proof import prove
from msc_edge.export.fused.single_file import fuse
from msc_edge.export.fused.writing import Targets
from msc_edge.export.pack import export
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.check_image import check_image

LABELS = ("normal", "warn", "reject")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["fuse", *map(str, arguments)])


@lru_cache(maxsize=1)
def opened(file: Path, changed: int) -> ort.InferenceSession:
    del changed  # another file under the same name
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def scores_of(file: Path, image: np.ndarray, **limits: float) -> dict[str, Any]:
    session = opened(file, file.stat().st_mtime_ns)
    names = [each.name for each in session.get_outputs()]
    feed = {"image": image[None]} | {name: np.array([value]) for name, value in limits.items()}
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.mark.parametrize("kit", ["toy_kit", "patch_kit", "trained_patch_kit"])
def test_it_scores_as_the_kit(
    kit: str, request: pytest.FixtureRequest, command: Callable[..., Result], toy: ModuleType, tmp_path: Path
) -> None:
    found = request.getfixturevalue(kit)
    path = found[0] if isinstance(found, tuple) else found
    done = command(path, "--out", "line/kit.onnx")
    assert done.exit_code == 0, done.output
    assert "no changed verdict" in done.output
    detector, verdicts = Detector.load(path, threads=1, search="exact"), set()
    for seed in range(24):
        image = toy.draw(900 + seed, (None, "stain", "scratch", "empty")[seed % 4])
        result, single = detector.score(image, heatmap=True), scores_of(tmp_path / "line/kit.onnx", image)
        assert single["score"][0] == pytest.approx(result.score, abs=1e-5, rel=1e-5)
        assert single["image_score"][0] == pytest.approx(result.image_score, abs=1e-9)
        assert single["p_value"][0] == pytest.approx(result.p_value, abs=1e-12)
        assert LABELS[single["verdict"][0]] == result.verdict
        assert single["embedding"][0] == pytest.approx(result.embedding, abs=1e-6)
        verdicts.add(result.verdict)
        if result.grid_map is not None and result.patch_score is not None:
            assert single["patch_score"][0] == pytest.approx(result.patch_score, rel=1e-5)
            assert single["anomaly_map"][0] == pytest.approx(result.grid_map.grid, rel=1e-5, abs=1e-5)
            at_frame = result.grid_map.at_frame(height=224, width=224)
            assert single["anomaly_map_224"][0] == pytest.approx(at_frame, rel=1e-5, abs=1e-5)
        else:
            assert not {"patch_score", "anomaly_map", "anomaly_map_224"} & single.keys()
    assert len(verdicts) > 1


def test_the_model_is_the_default_or_the_chosen_one(
    int8_kit: Path, command: Callable[..., Result], tmp_path: Path
) -> None:
    """The limits of int8 are twice as high in this kit."""
    for precision in ("fp32", "int8"):
        assert command(int8_kit, "--out", f"{precision}.onnx", "--precision", precision).exit_code == 0
        detector = Detector.load(int8_kit, threads=1, precision=precision)
        properties = properties_of(tmp_path / f"{precision}.onnx")
        assert properties["model"] == precision
        assert json.loads(properties["limits"])["reject"]["score"] == detector.limits.reject.score
    assert command(int8_kit, "--out", "default.onnx").exit_code == 0
    assert properties_of(tmp_path / "default.onnx")["model"] == Detector.load(int8_kit, threads=1).model


def test_limits_may_be_given(patch_kit: Path, command: Callable[..., Result], toy: ModuleType, tmp_path: Path) -> None:
    assert command(patch_kit, "--out", "kit.onnx").exit_code == 0
    image = toy.draw(7, "stain")
    score = float(scores_of(tmp_path / "kit.onnx", image)["score"][0])
    given = [{"warn_limit": score - 1, "reject_limit": score + 1}, {"reject_limit": score - 1}, {"reject_limit": 1e9}]
    assert [int(scores_of(tmp_path / "kit.onnx", image, **each)["verdict"][0]) for each in given] == [1, 2, 1]


def properties_of(file: Path) -> dict[str, str]:
    properties = {each.key: each.value for each in onnx.load(file).metadata_props}
    assert all(name.startswith("msc_edge.") for name in properties)
    return {name.removeprefix("msc_edge."): value for name, value in properties.items()}


def test_the_file_says_what_an_integrator_must_know(
    patch_kit: Path, command: Callable[..., Result], tmp_path: Path
) -> None:
    assert command(patch_kit, "--out", "kit.onnx").exit_code == 0
    detector = Detector.load(patch_kit, threads=1)
    properties = properties_of(tmp_path / "kit.onnx")
    assert properties["format"] == "1"
    assert (properties["kit_name"], properties["kit_sha256"]) == (detector.kit.name, detector.kit.sha256)
    assert json.loads(properties["labels"]) == list(LABELS)
    limits = json.loads(properties["limits"])
    for name in ("warn", "reject"):
        limit = getattr(detector.limits, name)
        assert limits[name] == {
            "score": limit.score,
            "target_rate": limit.target_rate,
            "expected_rate": limit.expected_rate,
        }
    preprocessing = detector.manifest.preprocessing
    assert json.loads(properties["preprocessing"])["image_size"] == preprocessing.image_size
    assert json.loads(properties["decode"]) == detector.manifest.decode.model_dump(mode="json")
    assert json.loads(properties["weights"])["licence"]
    check = scores_of(tmp_path / "kit.onnx", check_image(preprocessing))
    assert json.loads(properties["check_image"])["score"] == pytest.approx(check["score"][0], rel=1e-5)


def test_only_plain_operators_and_nothing_unneeded(
    trained_patch_kit: tuple[Path, Manifest], command: Callable[..., Result], tmp_path: Path
) -> None:
    assert command(trained_patch_kit[0], "--out", "kit.onnx").exit_code == 0
    model = onnx.load(tmp_path / "kit.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert [each.version for each in model.opset_import if each.domain == ""] <= [20]
    needed = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    assert [node.name for node in model.graph.node if not needed.intersection(node.output)] == []
    assert [each.name for each in model.graph.initializer if each.name not in needed] == []
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("bank", ["float16", "int8"])
def test_a_rounded_bank_is_smaller_and_moves_scores_little(
    bank: str, patch_kit: Path, command: Callable[..., Result], toy: ModuleType, tmp_path: Path
) -> None:
    assert command(patch_kit, "--out", "exact.onnx").exit_code == 0
    assert command(patch_kit, "--out", "rounded.onnx", "--bank", bank).exit_code == 0
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("exact", "rounded")]
    assert sizes[1] < sizes[0]
    exact, rounded = (
        [float(scores_of(tmp_path / f"{name}.onnx", toy.draw(seed))["image_score"][0]) for seed in range(8)]
        for name in ("exact", "rounded")
    )
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs={"float16": 1e-4, "int8": 2e-3}[bank])
    assert json.loads(properties_of(tmp_path / "rounded.onnx")["bank"])["type"] == bank


def test_another_verdict_is_refused_by_the_proof(patch_kit: Path, toy: ModuleType) -> None:
    with Kit.open(patch_kit) as kit:
        single = fuse(kit)
    assert prove(single, [("part", toy.draw(1))]).changed_verdicts == 0
    limits = single.detector.with_limits(threshold=single.detector.limits.reject.score * 1000)
    wrong = replace(single, detector=limits)
    with pytest.raises(
        KitError, match=r"no file was written: it scores a stain otherwise than the kit .*another verdict"
    ):
        prove(wrong, [("a stain", toy.draw(1, "stain"))])


def test_errors_leave_nothing(patch_kit: Path, command: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "old.onnx").write_bytes(b"old")
    (tmp_path / "none").mkdir()
    for arguments, code, message in (
        ((patch_kit, "--out", "kit.bin"), 2, "choose a name that ends with .onnx"),
        ((patch_kit, "--out", "old.onnx"), 2, "exists; pass --overwrite"),
        ((tmp_path / "nowhere", "--out", "kit.onnx"), 4, "nowhere: cannot be opened"),
        ((patch_kit, "--out", "kit.onnx", "--images", tmp_path / "none"), 3, "no images found"),
        ((patch_kit, "--out", "kit.onnx", "--precision", "int8"), 2, "int8"),
    ):
        done = command(*arguments)
        assert (done.exit_code, message in done.output) == (code, True), done.output
    assert sorted(each.name for each in tmp_path.iterdir()) == ["none", "old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"old"
    assert command(patch_kit, "--out", "old.onnx", "--overwrite").exit_code == 0


def test_images_of_the_line_may_be_the_proof(
    patch_kit: Path, command: Callable[..., Result], toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    for seed in range(3):
        save(tmp_path / "parts" / f"{seed}.png", toy.draw(seed))
    done = command(patch_kit, "--out", "kit.onnx", "--images", "parts")
    assert done.exit_code == 0, done.output
    assert "proof: 6 images" in done.output


def test_export_writes_it_too(patch_run: Path, toy: ModuleType, tmp_path: Path) -> None:
    export(
        patch_run, tmp_path / "new.kit", precision="fp32", warn_rate=0.2, fused=Targets.checked(tmp_path / "kit.onnx")
    )
    detector = Detector.load(tmp_path / "new.kit", threads=1)
    image = toy.draw(3, "scratch")
    assert scores_of(tmp_path / "kit.onnx", image)["score"][0] == pytest.approx(detector.score(image).score, rel=1e-5)
    assert properties_of(tmp_path / "kit.onnx")["kit_sha256"] == detector.kit.sha256
