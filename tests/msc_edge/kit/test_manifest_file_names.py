"""Names of files in manifest.json: none leads out of the kit."""

import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.errors import KitError
from msc_edge.kit.manifest import Manifest, manifest_schema

validate = jsonschema.Draft202012Validator(json.loads(manifest_schema())).validate
DIGEST = "0123456789abcdef" * 4
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
def test_a_file_name_that_could_lead_out_of_the_kit_is_refused(
    name: str, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    document = changed("files", {name: {"sha256": DIGEST, "bytes": 1}})
    with pytest.raises(jsonschema.ValidationError):
        validate(document)
    with pytest.raises(KitError, match=r"^manifest\.json: files"):
        parse(document)


@pytest.mark.parametrize("name", ["x\n", "model.onnx\n"])
def test_a_file_name_that_ends_in_a_new_line_is_refused(
    name: str, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    """By us; Python's jsonschema lets `$` match before it."""
    with pytest.raises(KitError, match=r"^manifest\.json: files"):
        parse(changed("files", {name: {"sha256": DIGEST, "bytes": 1}}))


@pytest.mark.parametrize("name", ["model.onnx", "thumbnails/00000.jpg", "a-b_c.9", "README", "a..b"])
def test_a_plain_file_name_is_accepted(
    name: str, changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest]
) -> None:
    document = changed("files", {name: {"sha256": DIGEST, "bytes": 1}})
    validate(document)
    assert list(parse(document).files) == [name]


@given(st.text(max_size=12))
def test_no_accepted_file_name_leaves_its_folder(
    changed: Callable[..., dict[str, Any]], parse: Callable[[Any], Manifest], name: str
) -> None:
    try:
        parse(changed("files", {name: {"sha256": DIGEST, "bytes": 1}}))
    except KitError:
        return
    assert re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII)
    assert not any(part.startswith(".") for part in name.split("/"))
