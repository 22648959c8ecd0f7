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
from msc_edge.kit.manifest import HELD_OUT, HISTORY_KEPT, Manifest, manifest_schema, parse_manifest

PUBLISHED = Path(__file__).resolve().parents[3] / "docs" / "manifest.schema.json"
SCHEMA = json.loads(manifest_schema())
DIGEST = "0123456789abcdef" * 4

# A manifest as docs/kit-format.md describes it, written by hand: what other programs would write.
DOCUMENT: dict[str, Any] = {
    "format_version": 1,
    "msc_edge_version": "0.1.0",
    "decode": {"bit_depth": 12, "jpeg_keep": None},
    "preprocessing": {
        "preset": "paper",
        "image_size": 224,
        "resize": "short-side",
        "resize_to": 256,
        "region": {"x": 10, "y": 20, "width": 300, "height": 400},
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "model": {"backbone": "resnet18", "stop_at": "layer3", "dim": 256, "precision": "fp32", "opset": 20},
    "bank": {
        "count": 300,
        "dim": 256,
        "k": 2,
        "search": "exact",
        "index": {"space": "cosine", "m": 16, "ef_construction": 200, "ef": 64, "recall": 0.9995, "queries": 100},
    },
    "calibration": {
        "scores": [0.1, 0.2, 0.30000000000000004],
        "warn_rate": 0.3,
        "reject_rate": 0.25,
        "limits": {
            "warn": {"score": 0.30000000000000004, "target_rate": 0.3, "expected_rate": 0.25},
            "reject": {"score": 0.30000000000000004, "target_rate": 0.25, "expected_rate": 0.25},
        },
        "created": "2026-03-01T00:00:00Z",
        "why": "neue Lampe",
        "history": [
            {
                "created": "2026-01-01T00:00:00Z",
                "why": "held out of the images that were trained on",
                "count": 40,
                "quantiles": [0.05, 0.1, 0.15, 0.2, 0.4],
                "warn_rate": 0.05,
                "reject_rate": 0.025,
                "limits": {
                    "warn": {"score": 0.35, "target_rate": 0.05, "expected_rate": 0.04878048780487805},
                    "reject": {"score": 0.4, "target_rate": 0.025, "expected_rate": 0.024390243902439025},
                },
            }
        ],
    },
    "provenance": {
        "created": "2026-01-01T00:00:00Z",
        "recipe": {"recipe": "v2", "steps": 40, "rate": 1e-4, "views": {"blur": [0.1, 2]}},
        "weights": {"source": "größe.safetensors", "sha256": DIGEST, "licence": "BSD-3-Clause"},
        "seed": 0,
        "images": 400,
        "data_fingerprint": DIGEST,
        "versions": {"torch": "2.14.1"},
    },
    "parity": {
        "images": 32,
        "max_score_difference": 1e-7,
        "max_embedding_difference": 2e-7,
        "changed_verdicts": 0,
    },
    "files": {
        "model.onnx": {"sha256": DIGEST, "bytes": 12},
        "thumbnails/00000.jpg": {"sha256": DIGEST, "bytes": 0},
    },
}


DOCUMENT |= {
    "int8": {
        "quantization": {
            "target": "x86-vnni",
            "images": 64,
            "layers": 15,
            "in_float": ["backbone.conv1.weight"],
            "check": [0.6, -0.8],
        },
        "agreement": {
            "good": 60,
            "spoiled": 180,
            "auroc_fp32": 0.93,
            "auroc_int8": 0.9275,
            "rank_correlation": 0.9951,
        },
        "bank": DOCUMENT["bank"],
        "calibration": DOCUMENT["calibration"],
    },
    "preferred": "auto",
}


def changed(where: str, value: Any) -> dict[str, Any]:
    """The document with another value at a dotted place; with `...` without that place."""
    document = copy.deepcopy(DOCUMENT)
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
    jsonschema.validate(DOCUMENT, SCHEMA)
    manifest = parse(DOCUMENT)
    assert json.loads(manifest.to_json()) == DOCUMENT
    assert parse_manifest(manifest.to_json().encode()) == manifest


def test_the_limits_of_a_read_manifest_decide_as_they_are_written() -> None:
    limits = parse(DOCUMENT).calibration.limits
    assert (limits.verdict(0.3), limits.verdict(0.30000000000000004), limits.verdict(0.31)) == (
        "normal",
        "normal",
        "reject",
    )
    assert parse(DOCUMENT).calibration.calibrated.p_value(0.15) == 0.75


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50), st.sampled_from([0.05, 0.01, 0.001]))
def test_scores_and_limits_survive_to_the_last_digit(scores: list[float], rate: float) -> None:
    calibration = Calibration(scores)
    limits = calibration.limits(warn_rate=0.1, reject_rate=rate)
    part = parse(DOCUMENT).calibration.model_copy(
        update={"scores": calibration.scores.tolist(), "reject_rate": rate, "limits": limits}
    )
    manifest = parse(DOCUMENT).model_copy(update={"calibration": part})
    again = parse_manifest(manifest.to_json().encode())
    assert again == manifest
    assert (again.calibration.calibrated.scores == calibration.scores).all()


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(DOCUMENT).format_version = 1  # pyright: ignore[reportAttributeAccessIssue]


HAS_DEFAULT = ["decode.bit_depth", "decode.jpeg_keep", "preprocessing.mean", "preprocessing.std"]
HAS_DEFAULT += ["calibration.created", "calibration.why", "calibration.history"]


@pytest.mark.parametrize("where", HAS_DEFAULT)
def test_what_has_a_default_may_be_left_out(where: str) -> None:
    jsonschema.validate(changed(where, ...), SCHEMA)
    parse(changed(where, ...))


def test_a_kit_from_before_limits_could_be_set_anew_has_an_empty_history() -> None:
    document = changed("calibration.history", ...)
    del document["calibration"]["created"], document["calibration"]["why"]
    calibration = parse(document).calibration
    assert (calibration.history, calibration.created, calibration.why) == ([], None, HELD_OUT)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("parity", None),
        ("bank.index", None),
        ("model.stop_at", None),
        ("preprocessing.region", None),
        ("decode.jpeg_keep", None),
    ],
)
def test_what_may_be_null(where: str, value: None) -> None:
    document = changed(where, value)
    jsonschema.validate(document, SCHEMA)
    assert json.loads(parse(document).to_json()) == document


PAST = DOCUMENT["calibration"]["history"][0]
REFUSED = [
    # unknown keys, at every level
    ("signature", "x"),
    ("decode.gamma", 2.2),
    ("preprocessing.blur", 1),
    ("preprocessing.region.angle", 0),
    ("model.external_data", "weights.bin"),
    ("bank.index.threads", 1),
    ("calibration.limits.panic", {"score": 1, "target_rate": None, "expected_rate": None}),
    ("calibration.limits.warn.comment", "x"),
    ("files.model|onnx.url", "https://example.com/model.onnx"),
    # missing keys
    ("files", ...),
    ("parity", ...),
    ("bank.k", ...),
    ("calibration.limits.reject", ...),
    ("calibration.limits.warn.score", ...),
    # other types and ranges
    ("model.precision", "int8"),
    ("model.dim", 0),
    ("model.dim", "256"),
    ("bank.k", 0),
    ("bank.k", True),
    ("bank.count", 300.5),
    ("calibration.limits.warn.score", "0.3"),
    ("bank.search", "annoy"),
    ("bank.index.space", "l2"),
    ("bank.index.recall", 1.01),
    ("bank.index.ef", -1),
    ("decode.bit_depth", 9),
    ("decode.jpeg_keep", 0),
    ("preprocessing.mean", [0.5, 0.5]),
    ("preprocessing.region.width", 0),
    ("calibration.scores", []),
    ("calibration.scores", [0.1, None]),
    ("calibration.warn_rate", 0),
    ("calibration.created", 2026),
    ("calibration.why", None),
    ("calibration.history", None),
    ("calibration.history", [{}]),
    ("calibration.history", [PAST | {"scores": [0.1]}]),
    ("calibration.history", [PAST | {"quantiles": [0.1, 0.2]}]),
    ("calibration.history", [PAST | {"count": 0}]),
    ("calibration.history", [PAST] * (HISTORY_KEPT + 1)),
    ("calibration.reject_rate", 1),
    ("calibration.limits.warn.score", "high"),
    ("parity.changed_verdicts", 1),
    ("parity.max_score_difference", -1),
    ("provenance.images", 0),
    ("provenance.weights.sha256", DIGEST[:-1]),
    ("provenance.weights.sha256", DIGEST.upper()),
    ("provenance.data_fingerprint", DIGEST + "0"),
    ("files", []),
    ("files", {"model.onnx": DIGEST}),
    ("files", {"model.onnx": {"sha256": DIGEST, "bytes": -1}}),
    ("files", {"model.onnx": {"sha256": DIGEST, "bytes": 1.5}}),
]


@pytest.mark.parametrize(("where", "value"), REFUSED)
def test_what_breaks_the_schema_is_refused_by_us_and_by_the_schema(where: str, value: Any) -> None:
    document = changed(where, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)
    with pytest.raises(KitError, match=r"^manifest\.json: [^\n]+; export the kit again$") as refusal:
        parse(document)
    named = where.replace("|", ".")
    first = str(refusal.value).removeprefix("manifest.json: ")
    assert first.startswith(named.partition(".")[0]), "the message does not say where"


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
        jsonschema.validate(document, SCHEMA)
    with pytest.raises(KitError, match=r"^manifest\.json: files"):
        parse(document)


@pytest.mark.parametrize("name", ["x\n", "model.onnx\n"])
def test_a_file_name_that_ends_in_a_new_line_is_refused(name: str) -> None:
    """By us; Python's jsonschema lets `$` match before it."""
    with pytest.raises(KitError, match=r"^manifest\.json: files"):
        parse(changed("files", {name: {"sha256": DIGEST, "bytes": 1}}))


@pytest.mark.parametrize("name", ["model.onnx", "thumbnails/00000.jpg", "a-b_c.9", "README", "a..b"])
def test_a_plain_file_name_is_taken(name: str) -> None:
    document = changed("files", {name: {"sha256": DIGEST, "bytes": 1}})
    jsonschema.validate(document, SCHEMA)
    assert list(parse(document).files) == [name]


@given(st.text(max_size=12))
def test_no_accepted_file_name_leaves_its_folder(name: str) -> None:
    try:
        parse(changed("files", {name: {"sha256": DIGEST, "bytes": 1}}))
    except KitError:
        return
    assert re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII)
    assert not any(part.startswith(".") for part in name.split("/"))


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, 1.5, [1], {}, ...])
def test_another_format_version_is_refused_by_name(version: Any) -> None:
    with pytest.raises(KitError, match=r"format_version is .*, and this msc-edge reads 1; install the msc-edge that"):
        parse(changed("format_version", version))


def test_a_manifest_of_the_future_is_refused_for_its_version_and_not_for_its_new_keys() -> None:
    with pytest.raises(KitError, match="format_version is 2"):
        parse(changed("format_version", 2) | {"signature": "x"})


def numbers(document: Any, where: str = "") -> Iterator[str]:
    for key, value in document.items():
        place = f"{where}.{key.replace('.', '|')}".lstrip(".")
        if isinstance(value, dict) and key != "recipe":
            yield from numbers(value, place)
        elif isinstance(value, float) or (isinstance(value, list) and key in ("scores", "mean", "std")):
            yield place


@pytest.mark.parametrize("where", sorted(numbers(DOCUMENT)))
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused_everywhere(where: str, value: str) -> None:
    """JSON has no NaN, but json.dumps writes it, and `score > NaN` would call every part good."""
    is_list = where.endswith(("scores", "mean", "std"))
    document = changed(where, ["@", "@", "@"] if is_list else "@")
    text = json.dumps(document).replace('"@"', value)
    with pytest.raises(KitError, match=r"^manifest\.json: "):
        parse_manifest(text.encode())


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
        b'{"format_version": 1, "msc_edge_version": "\\ud800"}',
        b"\xef\xbb\xbf" + json.dumps(DOCUMENT).encode(),
        json.dumps(DOCUMENT).encode()[:-1],
        json.dumps(DOCUMENT).encode() + b"x",
        json.dumps(DOCUMENT).encode("utf-16"),
    ],
    ids=repr,
)
def test_what_is_no_manifest_is_one_kit_error(text: bytes) -> None:
    with pytest.raises(KitError, match=r"^manifest\.json: ") as refusal:
        parse_manifest(text)
    assert refusal.value.exit_code == 4


def test_the_schema_is_a_valid_one_of_the_draft_it_names() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_published_schema_is_the_one_that_is_enforced() -> None:
    """After a change: python -c "from msc_edge.kit.manifest import *; print(manifest_schema(), end='')" > docs/manifest.schema.json"""  # noqa: E501
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == SCHEMA
