"""manifest.json: what it may hold, and what is refused. tests/msc_edge/kit/test_upgrade.py: older formats."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.calibration import Calibration
from msc_edge.errors import KitError
from msc_edge.kit.manifest import Manifest, manifest_schema, parse_manifest
from msc_edge.kit.model_entry import HELD_OUT, HISTORY_LENGTH, CalibrationInfo, RegionCalibration

PUBLISHED = Path(__file__).resolve().parents[3] / "docs" / "manifest.schema.json"
SCHEMA = json.loads(manifest_schema())
validate = jsonschema.Draft202012Validator(SCHEMA).validate
DIGEST = "0123456789abcdef" * 4


def calibration(*scores: float) -> dict[str, Any]:
    limit = {"score": scores[-1], "target_rate": 0.3, "expected_rate": 0.25}
    return {
        "scores": list(scores),
        "groups": None,
        "warn_rate": 0.3,
        "reject_rate": 0.25,
        "limits": {"warn": limit, "reject": limit | {"target_rate": 0.25}},
        "created": "2026-03-01T00:00:00Z",
        "reason": "neue Lampe",
        "history": [
            {
                "created": "2026-01-01T00:00:00Z",
                "reason": "held out of the training images",
                "count": 40,
                "quantiles": [0.05, 0.1, 0.15, 0.2, 0.4],
                "warn_rate": 0.05,
                "reject_rate": 0.025,
                "limits": {
                    "warn": {"score": 0.35, "target_rate": 0.05, "expected_rate": 0.04878048780487805},
                    "reject": {"score": 0.4, "target_rate": None, "expected_rate": None},
                },
                "region_limit": {"score": 2.25, "target_rate": 0.05, "expected_rate": 0.04878048780487805},
            }
        ],
        "regions": {
            "patch_scores": [1.5, 1.75, 2.5],
            "groups": None,
            "rate": 0.25,
            "limit": {"score": 2.5, "target_rate": 0.25, "expected_rate": 0.25},
        },
    }


def model(infix: str, *scores: float) -> dict[str, Any]:
    """The parts that every model has."""
    return {
        "file": f"model{infix}.onnx",
        "opset": 20,
        "outputs": {"embedding": {"dim": 2}, "patch_distances": {"rows": 14, "columns": 14, "stride": 16}},
        "banks": {
            "images": {
                "file": f"bank{infix}.npy",
                "count": 300,
                "k": 2,
                "search": "exact",
                "index": {
                    "file": f"bank{infix}.hnsw",
                    "space": "cosine",
                    "m": 16,
                    "ef_construction": 200,
                    "ef": 64,
                    "recall": 0.9995,
                    "queries": 100,
                },
            },
            "patches": {"count": 4000, "dim": 256},
        },
        "scoring": {
            "kind": "both",
            "image": {"mean": 0.2, "deviation": 0.05},
            "patch": {"mean": 1.5, "deviation": 0.25},
            "map": {"smoothing": 0.5, "least_area": 16},
        },
        "calibration": calibration(*scores),
    }


# A manifest as docs/kit-format.md describes it, written by hand: what other programs would write.
DOCUMENT: dict[str, Any] = {
    "format_version": 2,
    "name": "bottles-3",
    "msc_edge_version": "0.2.0",
    "decode": {"bit_depth": 12, "jpeg_keep": None},
    "preprocessing": {
        "preset": "paper",
        "image_size": 224,
        "resize": "short-side",
        "resize_to": 256,
        "region": {"x": 10, "y": 20, "width": 300, "height": 400},
        "tiles": None,
        "ignore": None,
        "margin": 8,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "network": {"backbone": "resnet18", "stop_at": "layer3"},
    "normal_images": {"file": "normal_images.json", "count": 300},
    "models": {
        "fp32": model("", 0.1, 0.2, 0.30000000000000004)
        | {
            "parity": {
                "images": 32,
                "max_score_difference": 1e-7,
                "max_embedding_difference": 2e-7,
                "max_patch_difference": 3e-6,
                "changed_verdicts": 0,
            },
            "quantization": None,
            "agreement": None,
        },
        "int8": model(".int8", 0.11, 0.21, 0.31)
        | {
            "parity": None,
            "quantization": {
                "target": "x86-vnni",
                "images": 64,
                "layers": 15,
                "float_layers": ["backbone.conv1.weight"],
                "check_embedding": [0.6, -0.8],
                "check_patch_distances": [0.5, 0.25],
            },
            "agreement": {
                "normal_images": 60,
                "synthetic_anomalies": 180,
                "auroc_fp32": 0.93,
                "auroc": 0.9275,
                "rank_correlation": 0.9951,
                "maps": {"rank_correlation": 0.96, "au_pro_fp32": 0.71, "au_pro": 0.7},
                "loss": {
                    "normal_images": 60,
                    "synthetic_anomalies": 240,
                    "strength": 0.5,
                    "auroc_fp32": 0.9,
                    "auroc": 0.899,
                    "au_pro_fp32": 0.6,
                    "au_pro": 0.599,
                },
            },
        },
    },
    "default_model": "auto",
    "provenance": {
        "created": "2026-01-01T00:00:00Z",
        "recipe": {"recipe": "v2", "steps": 40, "rate": 1e-4, "views": {"blur": [0.1, 2]}},
        "weights": {"source": "größe.safetensors", "sha256": DIGEST, "licence": "BSD-3-Clause"},
        "seed": 0,
        "images": 400,
        "data_fingerprint": DIGEST,
        "versions": {"torch": "2.14.1"},
    },
    "extensions": {"com.example.line": {"number": 3}},
    "files": {
        "model.onnx": {"sha256": DIGEST, "bytes": 12},
        "thumbnails/00000.jpg": {"sha256": DIGEST, "bytes": 0},
    },
}
FP32 = "models.fp32"


def changed(where: str, value: Any, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """A document with another value at a dotted place; with `...` without that place."""
    document = copy.deepcopy(document or DOCUMENT)
    *parents, last = [part.replace("|", ".") for part in where.split(".")]
    part = document
    for parent in parents:
        part = part[parent]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return document


def parse(document: Any) -> Manifest:
    return parse_manifest(json.dumps(document).encode())


def test_a_manifest_of_another_program_is_read_and_written_back_the_same() -> None:
    validate(DOCUMENT)
    manifest = parse(DOCUMENT)
    assert json.loads(manifest.to_json()) == DOCUMENT
    assert parse_manifest(manifest.to_json().encode()) == manifest


def test_limits_and_p_values_follow_from_the_calibration_of_each_model() -> None:
    manifest = parse(DOCUMENT)
    fp32, int8 = (manifest.models[precision].calibration for precision in ("fp32", "int8"))
    assert [fp32.limits.verdict(score) for score in (0.3, 0.30000000000000004, 0.305)] == ["normal", "normal", "reject"]
    assert [int8.limits.verdict(score) for score in (0.305, 0.31, 0.32)] == ["normal", "normal", "reject"]
    assert fp32.calibration.p_value(0.15) == 0.75
    assert int8.calibration.p_value(0.205) == 0.75
    assert fp32.calibration.p_value(0.205) == 0.5


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50), st.sampled_from([0.05, 0.01, 0.001]))
def test_scores_and_limits_survive_to_the_last_digit(scores: list[float], rate: float) -> None:
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


def test_calibrations_are_replaced_one_model_at_a_time() -> None:
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
def test_a_kit_has_one_model_or_two_and_fp32_is_the_reference(models: list[str], precisions: tuple[str, ...]) -> None:
    document = changed("models", {name: DOCUMENT["models"][name] for name in models})
    validate(document)
    manifest = parse(document)
    assert manifest.precisions == precisions
    assert manifest.reference_model == manifest.models[manifest.precisions[0]]


def test_a_model_lists_its_files() -> None:
    models = parse(DOCUMENT).models
    assert models["fp32"].files == ["model.onnx", "bank.npy", "bank.hnsw"]
    assert models["int8"].files == ["model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"]
    assert parse(changed(f"{FP32}.banks.images.index", None)).models["fp32"].files == ["model.onnx", "bank.npy"]


def test_a_manifest_cannot_be_changed() -> None:
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
def test_a_member_with_a_default_may_be_missing(where: str) -> None:
    validate(changed(where, ...))
    parse(changed(where, ...))


def test_a_calibration_without_history_is_the_first_one() -> None:
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
def test_members_that_may_be_null(where: str) -> None:
    document = changed(where, None)
    validate(document)
    assert json.loads(parse(document).to_json()) == document


def test_extensions_hold_anything_and_change_nothing_else() -> None:
    document = changed("extensions", {"com.example": {"deep": [1, None, "x"]}, "other": True})
    validate(document)
    manifest = parse(document)
    assert manifest.extensions == document["extensions"]
    assert manifest.model_copy(update={"extensions": DOCUMENT["extensions"]}) == parse(DOCUMENT)


EARLIER = DOCUMENT["models"]["fp32"]["calibration"]["history"][0]
REFUSED_IN_A_MODEL: list[tuple[str, Any]] = [
    # unknown members
    ("external_data", "weights.bin"),
    ("outputs.patches", {"dim": 3}),
    ("banks.images.dim", 2),
    ("banks.images.index.threads", 1),
    ("calibration.limits.panic", {"score": 1, "target_rate": None, "expected_rate": None}),
    ("calibration.limits.warn.comment", "x"),
    # missing members
    ("file", ...),
    ("outputs", ...),
    ("outputs.embedding", ...),
    ("banks.images", ...),
    ("banks.images.k", ...),
    ("banks.images.index", ...),
    ("calibration", ...),
    ("calibration.limits.reject", ...),
    ("calibration.limits.warn.score", ...),
    # other types and ranges
    ("file", "../model.onnx"),
    ("opset", 0),
    ("outputs.embedding.dim", 0),
    ("outputs.embedding.dim", "256"),
    ("banks.images.k", 0),
    ("banks.images.k", True),
    ("banks.images.count", 300.5),
    ("banks.images.file", ""),
    ("banks.images.search", "annoy"),
    ("banks.images.index.space", "l2"),
    ("banks.images.index.recall", 1.01),
    ("banks.images.index.ef", -1),
    ("banks.images.index.ef", 2**64),
    ("outputs.embedding.dim", 2**31),
    ("calibration.scores", []),
    ("calibration.scores", [0.1, None]),
    ("calibration.warn_rate", 0),
    ("calibration.created", 2026),
    ("calibration.reason", None),
    ("calibration.history", None),
    ("calibration.history", [{}]),
    ("calibration.history", [EARLIER | {"scores": [0.1]}]),
    ("calibration.history", [EARLIER | {"quantiles": [0.1, 0.2]}]),
    ("calibration.history", [EARLIER | {"count": 0}]),
    ("calibration.history", [EARLIER] * (HISTORY_LENGTH + 1)),
    ("calibration.reject_rate", 1),
    ("calibration.limits.warn.score", "high"),
    ("calibration.limits.warn.score", "0.3"),
    ("parity.changed_verdicts", 1),
    ("parity.max_score_difference", -1),
    ("quantization", {}),
    ("agreement", {"auroc": 0.9}),
]
REFUSED: list[tuple[str, Any]] = [
    *((f"{FP32}.{where}", value) for where, value in REFUSED_IN_A_MODEL),
    # unknown members
    ("signature", "x"),
    ("decode.gamma", 2.2),
    ("preprocessing.blur", 1),
    ("preprocessing.region.angle", 0),
    ("models.fp16", DOCUMENT["models"]["fp32"]),
    ("files.model|onnx.url", "https://example.com/model.onnx"),
    # missing members
    ("name", ...),
    ("files", ...),
    ("default_model", ...),
    ("normal_images.count", ...),
    # other types and ranges
    ("name", "two words"),
    ("name", ".."),
    ("name", "x" * 64),
    ("models", {}),
    ("models", []),
    ("default_model", "int4"),
    ("normal_images.file", "/etc/passwd"),
    ("normal_images.count", 0),
    ("decode.bit_depth", 9),
    ("decode.jpeg_keep", 0),
    ("preprocessing.mean", [0.5, 0.5]),
    ("preprocessing.region.width", 0),
    ("models.int8.quantization.target", "riscv"),
    ("models.int8.quantization.check_embedding", 0.6),
    ("models.int8.agreement.rank_correlation", -1.1),
    ("provenance.images", 0),
    ("provenance.weights.sha256", DIGEST[:-1]),
    ("provenance.weights.sha256", DIGEST.upper()),
    ("provenance.data_fingerprint", DIGEST + "0"),
    ("extensions", None),
    ("files", []),
    ("files", {"model.onnx": DIGEST}),
    ("files", {"model.onnx": {"sha256": DIGEST, "bytes": -1}}),
    ("files", {"model.onnx": {"sha256": DIGEST, "bytes": 1.5}}),
]


@pytest.mark.parametrize("limit", ["limits.warn", "limits.reject", "regions.limit"])
@pytest.mark.parametrize(
    ("rate", "value"),
    [
        *(("target_rate", value) for value in (None, 0, -1, 1, 5e-324, 1e308)),
        *(("expected_rate", value) for value in (None, 0, -1e308, 1, 1e308)),
    ],
)
def test_a_limit_with_rates_that_no_calibration_gives_is_refused(limit: str, rate: str, value: float | None) -> None:
    found = re.escape(f"{rate} {value if value is None else float(value)}")
    with pytest.raises(KitError, match=rf"{limit.removeprefix('regions.')} is .*{found}[,)].*, but the scores give"):
        parse(changed(f"{FP32}.calibration.{limit}.{rate}", value))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limits.reject.score": 1e308}, r"limits\.reject is 1e\+308 .*, but the scores give 0\.3"),
        ({"limits.reject.score": 0.2}, r"limits\.reject is 0\.2 .*, but the scores give 0\.3"),
        ({"limits.warn.score": 0.31}, r"limits\.warn is 0\.31 "),
        ({"limits.reject.target_rate": None, "limits.reject.expected_rate": None}, r"limits\.reject is 0\.3 "),
        ({"reject_rate": 0.2}, r"limits\.reject is 0\.3 .*for the target rate 0\.2 "),
        ({"warn_rate": 0.2}, "warn_rate 0.2 is below reject_rate 0.25"),
        ({"reject_rate": 5e-324, "limits.reject.target_rate": 5e-324}, "the target rate .* is below 1e-12"),
        ({"scores": [0.2, 0.1, 0.3]}, "scores are not in ascending order"),
        ({"groups": [0, 1]}, "scores: there are 3, but 2 groups"),
        ({"groups": [0, 0, 0]}, "expected_rate"),
        ({"regions.groups": [0, 1, 2, 3]}, "patch_scores: there are 3, but 4 groups"),
        ({"regions.limit.score": 1e308}, r"regions: limit is 1e\+308 .*, but the scores give 2\.5"),
        ({"regions.patch_scores": [1.75, 1.5, 2.5]}, "patch_scores are not in ascending order"),
        ({"regions.patch_scores": [-1, 1.5, 2.5]}, "patch_scores begin with -1"),
    ],
)
def test_limits_that_do_not_follow_from_the_scores_are_refused(changes: dict[str, Any], reason: str) -> None:
    document = DOCUMENT
    for name, value in changes.items():
        document = changed(f"{FP32}.calibration.{name}", value, document)
    with pytest.raises(KitError, match=reason):
        parse(document)


def test_calibration_scores_that_no_image_can_have_are_refused(toy_kit: Path) -> None:
    """All limits follow from them: no part would ever be rejected."""
    document = json.loads((toy_kit / "manifest.json").read_bytes())
    forged = document["models"]["fp32"]["calibration"]
    forged["scores"] = [1e300 for _ in forged["scores"]]
    for limit in forged["limits"].values():
        limit["score"] = 1e300
    with pytest.raises(KitError, match=r"scores lie between 1e\+300 and 1e\+300, and scores of this model between"):
        parse(document)


@pytest.mark.parametrize(("where", "value"), REFUSED)
def test_reader_and_schema_refuse_the_same_manifests(where: str, value: Any) -> None:
    document = changed(where, value)
    with pytest.raises(jsonschema.ValidationError):
        validate(document)
    with pytest.raises(KitError, match=r"^manifest\.json: [^\n]+; export the kit again$") as refusal:
        parse(document)
    named = where.replace("|", ".").removesuffix("fp16").rstrip(".")
    assert str(refusal.value).startswith(f"manifest.json: {named}"), "the message does not name the place"


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (f"{FP32}.banks.images.k", 301, "k 301 is larger than the 300 rows"),
        (f"{FP32}.banks.images.count", 299, "bank.npy has 299 rows for 300 normal images"),
        ("normal_images.count", 301, "bank.npy has 300 rows for 301 normal images"),
        ("models.int8.outputs.embedding.dim", 3, "the models differ in dim, k or what their scores are made of"),
        ("models.int8.banks.images.k", 1, "the models differ in dim, k or what their scores are made of"),
        ("models", {"fp32": DOCUMENT["models"]["fp32"]}, "default_model is int8, and the kit has no such model"),
        (f"{FP32}.banks.patches", None, "belong together, and some of them are missing"),
        (f"{FP32}.scoring.image", None, "kind both does not fit the scales"),
        (f"{FP32}.scoring.map", None, "kind both needs a map"),
        ("preprocessing.margin", 7, "the patches of model.onnx do not cover the input"),
        (f"{FP32}.outputs.patch_distances.rows", 13, "the patches of model.onnx do not cover the input"),
        (f"{FP32}.outputs.patch_distances.stride", 8, "the patches of model.onnx do not cover the input"),
        ("preprocessing.resize_to", 223, "resize_to 223 is smaller than image_size 224"),
    ],
)
def test_values_that_contradict_each_other_are_refused(where: str, value: Any, reason: str) -> None:
    """A JSON schema cannot express these."""
    document = changed(where, value) | ({"default_model": "int8"} if where == "models" else {})
    validate(document)
    with pytest.raises(
        KitError, match=rf"^manifest\.json: (?!:)[^\n]*{reason}[^\n]*; export the kit again$"
    ) as refusal:
        parse(document)
    assert "Value error" not in str(refusal.value)


BAD_NAMES = ["../x", "/x", "a/b/c", "..", ".", "", "a/", "/", "a/..", "../a/x", ".hidden", "a/.hidden", ".a/x"]
BAD_NAMES += [
    "C:x",
    "C:\\x",
    "a\\b",
    "\\\\host\\share",
    "a b",
    "größe",
    "a\0b",
    "a//b",
    "./a",
    "~/x",
    "a:b",
    "x\r",
    "*",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_file_name_that_could_lead_out_of_the_kit_is_refused(name: str) -> None:
    document = changed("files", {name: {"sha256": DIGEST, "bytes": 1}})
    with pytest.raises(jsonschema.ValidationError):
        validate(document)
    with pytest.raises(KitError, match=r"^manifest\.json: files"):
        parse(document)


@pytest.mark.parametrize("name", ["x\n", "model.onnx\n"])
def test_a_file_name_that_ends_in_a_new_line_is_refused(name: str) -> None:
    """By us; Python's jsonschema lets `$` match before it."""
    with pytest.raises(KitError, match=r"^manifest\.json: files"):
        parse(changed("files", {name: {"sha256": DIGEST, "bytes": 1}}))


@pytest.mark.parametrize("name", ["model.onnx", "thumbnails/00000.jpg", "a-b_c.9", "README", "a..b"])
def test_a_plain_file_name_is_accepted(name: str) -> None:
    document = changed("files", {name: {"sha256": DIGEST, "bytes": 1}})
    validate(document)
    assert list(parse(document).files) == [name]


@given(st.text(max_size=12))
def test_no_accepted_file_name_leaves_its_folder(name: str) -> None:
    try:
        parse(changed("files", {name: {"sha256": DIGEST, "bytes": 1}}))
    except KitError:
        return
    assert re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII)
    assert not any(part.startswith(".") for part in name.split("/"))


@pytest.mark.parametrize("version", [0, -1, "2", None, 1.5, [2], {}, True, ...])
def test_an_unknown_format_version_is_refused(version: Any) -> None:
    with pytest.raises(KitError, match=r"format_version is .*, and this msc-edge reads formats 1 to 2; export the kit"):
        parse(changed("format_version", version))


def test_a_newer_format_is_refused_for_its_version_and_not_for_its_new_members() -> None:
    newer = changed("format_version", 3) | {"msc_edge_version": "0.9.1", "signature": "x"}
    with pytest.raises(KitError, match=r"format 3, and this msc-edge reads .* 1 to 2; install msc-edge 0\.9\.1 or"):
        parse(newer)


def numbers(document: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """The place and the value of each number, or list of numbers, that is not a whole number."""
    for key, value in document.items():
        place = f"{where}.{key.replace('.', '|')}".lstrip(".")
        if isinstance(value, dict) and key != "recipe":
            yield from numbers(value, place)
        elif isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float)):
            yield place, value


@pytest.mark.parametrize(("where", "value"), sorted(numbers(DOCUMENT)))
def test_only_finite_numbers_are_accepted(where: str, value: Any) -> None:
    """JSON has no NaN, but json.dumps writes it, and `score > NaN` would accept every part."""
    document = changed(where, ["@"] * len(value) if isinstance(value, list) else "@")
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        with pytest.raises(KitError, match=r"^manifest\.json: "):
            parse_manifest(json.dumps(document).replace('"@"', number).encode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"manifest"',
        b"\xff\xfe",
        b"{}",
        b"[" * 100_000,
        b'{"format_version": 1}',
        b'{"format_version": 2}',
        json.dumps(DOCUMENT | {"msc_edge_version": "\ud800"}).encode(),
        b"\xef\xbb\xbf" + json.dumps(DOCUMENT).encode(),
        json.dumps(DOCUMENT).encode()[:-1],
        json.dumps(DOCUMENT).encode() + b"x",
        json.dumps(DOCUMENT).encode("utf-16"),
    ],
    ids=repr,
)
def test_other_content_is_refused_with_one_kit_error(text: bytes) -> None:
    with pytest.raises(KitError, match=r"^manifest\.json: ") as refusal:
        parse_manifest(text)
    assert refusal.value.exit_code == 4


def test_the_schema_is_valid_in_the_draft_it_names() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_published_schema_is_the_schema_of_the_reader() -> None:
    """After a change: python -c "from msc_edge.kit.manifest import *; print(manifest_schema(), end='')" > docs/manifest.schema.json"""  # noqa: E501
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == SCHEMA
