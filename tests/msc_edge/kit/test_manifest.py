"""manifest.json: what it may hold. tests/msc_edge/kit/test_upgrade.py: older formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.calibration import Calibration
from msc_edge.kit.manifest import Manifest, manifest_schema, parse_manifest
from msc_edge.kit.model_entry import HELD_OUT, CalibrationInfo, RegionCalibration

PUBLISHED = Path(__file__).resolve().parents[3] / "docs" / "manifest.schema.json"
DOCUMENT: dict[str, Any] = json.loads(Path(__file__).with_name("manifest.json").read_bytes())
SCHEMA = json.loads(manifest_schema())
validate = jsonschema.Draft202012Validator(SCHEMA).validate
FP32 = "models.fp32"


def test_a_manifest_of_another_program_is_read_and_written_back_the_same(parse: Callable[[Any], Manifest]) -> None:
    validate(DOCUMENT)
    manifest = parse(DOCUMENT)
    assert json.loads(manifest.to_json()) == DOCUMENT
    assert parse_manifest(manifest.to_json().encode()) == manifest


def test_limits_and_p_values_follow_from_the_calibration_of_each_model(parse: Callable[[Any], Manifest]) -> None:
    manifest = parse(DOCUMENT)
    fp32, int8 = (manifest.models[precision].calibration for precision in ("fp32", "int8"))
    assert [fp32.limits.verdict(score) for score in (0.3, 0.30000000000000004, 0.305)] == ["normal", "normal", "reject"]
    assert [int8.limits.verdict(score) for score in (0.305, 0.31, 0.32)] == ["normal", "normal", "reject"]
    assert fp32.calibration.p_value(0.15) == 0.75
    assert int8.calibration.p_value(0.205) == 0.75
    assert fp32.calibration.p_value(0.205) == 0.5


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50), st.sampled_from([0.05, 0.01, 0.001]))
def test_scores_and_limits_survive_to_the_last_digit(
    parse: Callable[[Any], Manifest], scores: list[float], rate: float
) -> None:
    calibration = Calibration(scores)
    part = CalibrationInfo(
        scores=calibration.scores.tolist(),
        warn_rate=0.1,
        reject_rate=rate,
        limits=calibration.limits(warn_rate=0.1, reject_rate=rate),
        regions=RegionCalibration(patch_scores=calibration.scores.tolist(), rate=rate, limit=calibration.limit(rate)),
    )
    manifest = parse(DOCUMENT).with_calibrations({"fp32": part})
    again = parse_manifest(manifest.to_json().encode())
    assert again == manifest
    assert (again.models["fp32"].calibration.calibration.scores == calibration.scores).all()


def test_calibrations_are_replaced_one_model_at_a_time(parse: Callable[[Any], Manifest]) -> None:
    before = parse(DOCUMENT)
    new = before.models["int8"].calibration
    after = before.with_calibrations({"fp32": new})
    assert after.models["fp32"].calibration == new
    assert (
        after.models["fp32"].model_copy(update={"calibration": before.models["fp32"].calibration})
        == (before.models["fp32"])
    )
    assert after.models["int8"] == before.models["int8"]
    assert before.models["fp32"].calibration != new
    assert before.with_calibrations({}) == before


@pytest.mark.parametrize(
    ("models", "precisions"), [(["int8", "fp32"], ("fp32", "int8")), (["fp32"], ("fp32",)), (["int8"], ("int8",))]
)
def test_a_kit_has_one_model_or_two_and_fp32_is_the_reference(
    models: list[str],
    precisions: tuple[str, ...],
    changed: Callable[..., dict[str, Any]],
    parse: Callable[[Any], Manifest],
) -> None:
    document = changed("models", {name: DOCUMENT["models"][name] for name in models})
    validate(document)
    manifest = parse(document)
    assert manifest.precisions == precisions
    assert manifest.reference_model == manifest.models[manifest.precisions[0]]


def test_a_model_lists_its_files(changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]) -> None:
    models = parse(DOCUMENT).models
    assert models["fp32"].files == ["model.onnx", "bank.npy", "bank.hnsw"]
    assert models["int8"].files == ["model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"]
    assert parse(changed(f"{FP32}.banks.images.index", None)).models["fp32"].files == ["model.onnx", "bank.npy"]


def test_a_manifest_cannot_be_changed(parse: Callable[[Any], Manifest]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(DOCUMENT).name = "other"  # pyright: ignore[reportAttributeAccessIssue]


OPTIONAL = [
    "decode.bit_depth",
    "decode.jpeg_keep",
    "preprocessing.tiles",
    "preprocessing.ignore",
    "preprocessing.mean",
    "preprocessing.std",
    "extensions",
]
OPTIONAL += [f"{FP32}.{name}" for name in ("parity", "quantization", "agreement")]
OPTIONAL += [f"{FP32}.calibration.{name}" for name in ("created", "reason", "history")]


@pytest.mark.parametrize("where", OPTIONAL)
def test_a_member_with_a_default_may_be_missing(
    where: str, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    validate(changed(where, ...))
    parse(changed(where, ...))


def test_a_calibration_without_history_is_the_first_one(
    changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    document = changed(f"{FP32}.calibration.history", ...)
    del document["models"]["fp32"]["calibration"]["created"], document["models"]["fp32"]["calibration"]["reason"]
    calibration = parse(document).models["fp32"].calibration
    assert (calibration.history, calibration.created, calibration.reason) == ([], None, HELD_OUT)


@pytest.mark.parametrize(
    "where",
    [
        f"{FP32}.parity",
        f"{FP32}.banks.images.index",
        f"{FP32}.calibration.created",
        "network.stop_at",
        "preprocessing.region",
        "decode.jpeg_keep",
    ],
)
def test_members_that_may_be_null(
    where: str, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    document = changed(where, None)
    validate(document)
    assert json.loads(parse(document).to_json()) == document


def test_extensions_hold_anything_and_change_nothing_else(
    changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    document = changed("extensions", {"com.example": {"deep": [1, None, "x"]}, "other": True})
    validate(document)
    manifest = parse(document)
    assert manifest.extensions == document["extensions"]
    assert manifest.model_copy(update={"extensions": DOCUMENT["extensions"]}) == parse(DOCUMENT)


def test_the_schema_is_valid_in_the_draft_it_names() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_published_schema_is_the_schema_of_the_reader() -> None:
    """After a change: python -c "from msc_edge.kit.manifest import *; print(manifest_schema(), end='')" > docs/manifest.schema.json"""  # noqa: E501
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == SCHEMA
