"""Manifests that are refused: other members, values that contradict each other, other content."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from msc_edge.errors import KitError
from msc_edge.kit.manifest import Manifest, manifest_schema, parse_manifest
from msc_edge.kit.model_entry import HISTORY_LENGTH

DOCUMENT: dict[str, Any] = json.loads(Path(__file__).with_name("manifest.json").read_bytes())
validate = jsonschema.Draft202012Validator(json.loads(manifest_schema())).validate
DIGEST = "0123456789abcdef" * 4
FP32 = "models.fp32"
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
def test_a_limit_with_rates_that_no_calibration_gives_is_refused(
    limit: str, rate: str, value: float | None, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
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
def test_limits_that_do_not_follow_from_the_scores_are_refused(
    changes: dict[str, Any], reason: str, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    document = DOCUMENT
    for name, value in changes.items():
        document = changed(f"{FP32}.calibration.{name}", value, document)
    with pytest.raises(KitError, match=reason):
        parse(document)


def test_calibration_scores_that_no_image_can_have_are_refused(toy_kit: Path, parse: Callable[[Any], Manifest]) -> None:
    """All limits follow from them: no part would ever be rejected."""
    document = json.loads((toy_kit / "manifest.json").read_bytes())
    forged = document["models"]["fp32"]["calibration"]
    forged["scores"] = [1e300 for _ in forged["scores"]]
    for limit in forged["limits"].values():
        limit["score"] = 1e300
    with pytest.raises(KitError, match=r"scores lie between 1e\+300 and 1e\+300, and scores of this model are between"):
        parse(document)


@pytest.mark.parametrize(("where", "value"), REFUSED)
def test_reader_and_schema_refuse_the_same_manifests(
    where: str, value: Any, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
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
def test_values_that_contradict_each_other_are_refused(
    where: str, value: Any, reason: str, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    """A JSON schema cannot express these."""
    document = changed(where, value) | ({"default_model": "int8"} if where == "models" else {})
    validate(document)
    with pytest.raises(
        KitError, match=rf"^manifest\.json: (?!:)[^\n]*{reason}[^\n]*; export the kit again$"
    ) as refusal:
        parse(document)
    assert "Value error" not in str(refusal.value)


@pytest.mark.parametrize("version", [0, -1, "2", None, 1.5, [2], {}, True, ...])
def test_an_unknown_format_version_is_refused(
    version: Any, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    with pytest.raises(KitError, match=r"format_version is .*, and this msc-edge reads formats 1 to 2; export the kit"):
        parse(changed("format_version", version))


def test_a_newer_format_is_refused_for_its_version_and_not_for_its_new_members(
    changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
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
def test_only_finite_numbers_are_accepted(where: str, value: Any, changed: Callable[..., dict[str, Any]]) -> None:
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
