"""Kits of format 1: they open, score the same digits, and can be written in the current format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from msc_edge.errors import KitError
from msc_edge.images import read_image
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import Precision, kit_name, parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.upgrade import FORMAT_VERSION, upgraded
from msc_edge.runtime import Detector


@pytest.fixture(scope="session")
def format_1(written_by_0_1_0: Path) -> Path:
    return written_by_0_1_0 / "format-1.kit"


@pytest.fixture(scope="session")
def document(format_1: Path) -> dict[str, Any]:
    """The manifest of format 1, as it is on disk."""
    return json.loads((format_1 / MANIFEST).read_text(encoding="utf-8"))


def score_by_the_specification_of_format_1(kit: Path, document: dict[str, Any], image: np.ndarray, infix: str) -> float:
    """The reader that docs/kit-format.md of 0.1.0 showed, with bare onnxruntime and numpy."""
    part = document["int8"] if infix else document
    model = ort.InferenceSession(str(kit / f"model{infix}.onnx"), providers=["CPUExecutionProvider"])
    bank = np.load(kit / f"bank{infix}.npy").astype(np.float64)
    embedding = np.asarray(model.run(None, {"image": image[None]})[0])[0]
    distances = 1 - np.multiply(bank, embedding, dtype=np.float64).sum(axis=1)
    return float(np.sort(distances)[: part["bank"]["k"]].mean())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_kit_of_format_1_gives_the_scores_it_always_gave(
    written_by_0_1_0: Path, format_1: Path, document: dict[str, Any], precision: Precision
) -> None:
    expected = json.loads((written_by_0_1_0 / "expected.json").read_text(encoding="utf-8"))["results"][precision]
    detector = Detector.load(format_1, threads=1, precision=precision)
    for name, old in expected.items():
        path = written_by_0_1_0 / "images" / name
        result = detector.score_file(path)
        infix = ".int8" if precision == "int8" else ""
        # To the last digit on this processor, and within float32 rounding of the processor that wrote the file.
        assert result.score == score_by_the_specification_of_format_1(format_1, document, read_image(path), infix)
        assert result.score == pytest.approx(old["score"], abs=1e-6)
        assert (result.p_value, result.verdict) == (old["p_value"], old["verdict"])
        assert [(each.row, each.path) for each in result.nearest_images] == [
            (row, path) for row, path, _ in old["nearest"]
        ]
        assert result.model == precision


def test_the_verdicts_cover_all_three(written_by_0_1_0: Path) -> None:
    """The golden images would show a changed limit."""
    results = json.loads((written_by_0_1_0 / "expected.json").read_text(encoding="utf-8"))["results"]
    assert {each["verdict"] for each in results["fp32"].values()} == {"normal", "warn", "reject"}


def test_every_value_of_format_1_is_kept(format_1: Path, document: dict[str, Any]) -> None:
    with Kit.open(format_1) as kit:
        manifest = kit.manifest
    assert manifest.format_version == FORMAT_VERSION
    assert manifest.name == "format-1"
    assert manifest.default_model == document["preferred"] == "int8"
    assert manifest.network.backbone == document["model"]["backbone"]
    parts: dict[Precision, dict[str, Any]] = {"fp32": document, "int8": document["int8"]}
    for precision, part in parts.items():
        model, bank = manifest.models[precision], part["bank"]
        assert model.dim == bank["dim"]
        assert model.opset == document["model"]["opset"]
        assert (model.banks.images.count, model.banks.images.k) == (bank["count"], bank["k"])
        assert model.banks.images.index
        assert model.banks.images.index.ef == bank["index"]["ef"]
        assert model.calibration.scores == part["calibration"]["scores"]
        assert model.calibration.limits.warn.score == part["calibration"]["limits"]["warn"]["score"]
        assert model.calibration.limits.reject.expected_rate == part["calibration"]["limits"]["reject"]["promised_rate"]
    fp32, int8 = manifest.models["fp32"], manifest.models["int8"]
    assert fp32.calibration.reason == "new lamp"
    assert fp32.calibration.history[0].count == 12
    assert fp32.parity
    assert fp32.parity.images == document["parity"]["pictures"]
    assert int8.quantization
    assert int8.agreement
    assert int8.quantization.check_embedding == document["int8"]["quantization"]["check"]
    assert int8.agreement.synthetic_anomalies == document["int8"]["agreement"]["spoiled"]
    assert manifest.provenance.images == document["provenance"]["pictures"]
    assert manifest.provenance.recipe["selected_step"] == 0


def test_reading_an_older_kit_changes_nothing_on_disk(format_1: Path) -> None:
    before = {path: path.read_bytes() for path in format_1.rglob("*") if path.is_file()}
    with Kit.open(format_1) as kit:
        assert kit.identity.sha256 == (format_1 / "manifest.sha256").read_text().split()[0]
    assert {path: path.read_bytes() for path in format_1.rglob("*") if path.is_file()} == before


def test_the_oldest_kits_lack_the_later_fields_of_format_1(document: dict[str, Any]) -> None:
    """int8, preferred, created, why and history came after the first kits."""
    oldest = {name: value for name, value in document.items() if name not in ("int8", "preferred")}
    calibration = {k: v for k, v in document["calibration"].items() if k not in ("created", "why", "history")}
    manifest = parse_manifest(json.dumps(oldest | {"calibration": calibration}).encode(), name="old")
    assert manifest.precisions == ("fp32",)
    assert manifest.default_model == "fp32"
    assert manifest.models["fp32"].calibration.history == []


@pytest.mark.parametrize("missing", ["model", "bank", "calibration", "provenance", "files", "decode", "parity"])
def test_a_manifest_of_format_1_without_a_part_is_refused_in_one_line(document: dict[str, Any], missing: str) -> None:
    rest = {name: value for name, value in document.items() if name != missing}
    with pytest.raises(KitError, match="not a manifest of format 1") as refused:
        upgraded(rest, name="x")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["model", "bank", "calibration", "int8", "provenance"])
@pytest.mark.parametrize("value", [[], "text", 3, {"bank": []}])
def test_a_part_of_another_type_is_refused(document: dict[str, Any], part: str, value: object) -> None:
    with pytest.raises(KitError):
        parse_manifest(json.dumps(document | {part: value}).encode())


def test_a_newer_format_names_the_version_that_reads_it(document: dict[str, Any]) -> None:
    newer = document | {"format_version": 7, "msc_edge_version": "3.1.4"}
    with pytest.raises(KitError, match=r"has format 7, .* reads formats 1 to 2; install msc-edge 3\.1\.4"):
        parse_manifest(json.dumps(newer).encode())


@pytest.mark.parametrize("version", [None, 0, -1, True, "2", 1.5, [1], {"a": 1}])
def test_an_unknown_format_is_refused(document: dict[str, Any], version: object) -> None:
    with pytest.raises(KitError, match="reads formats 1 to 2"):
        parse_manifest(json.dumps(document | {"format_version": version}).encode())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bottles", "bottles"),
        ("Bottles ü 3", "Bottles-3"),
        ("..", "kit"),
        ("", "kit"),
        ("-a", "a"),
        ("x" * 99, "x" * 63),
    ],
)
def test_a_kit_name_is_made_from_any_text(text: str, name: str) -> None:
    assert kit_name(text) == name
