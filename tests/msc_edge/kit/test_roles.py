"""Which files a kit may list, and how large each may be."""

import json
from pathlib import Path
from typing import Any

import pytest

from msc_edge.errors import KitError
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.roles import check_files, largest_sizes

DIGEST = "0" * 64
INDEX = {"file": "bank.hnsw", "m": 16, "ef_construction": 200, "ef": 50, "recall": 1, "queries": 3}


def listing(manifest: Manifest, files: dict[str, int], **changes: Any) -> Manifest:
    """The small kit's manifest with an index, some changes, and these files with their sizes."""
    document = json.loads(manifest.to_json()) | changes
    document["models"]["fp32"]["banks"]["images"]["index"] = INDEX
    document["files"] = {name: {"sha256": DIGEST, "bytes": size} for name, size in files.items()}
    return parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "notes/a.txt",
        "BANK.NPY",
        "model.onnx.data",
        "thumbnails/00003.jpg",
        "thumbnails/0.jpg",
        "thumbnails/000000.jpg",
        "thumbnails/00000.png",
        "Thumbnails/00000.jpg",
        "00000.jpg",
        "manifest.json",
    ],
)
def test_a_file_without_a_role_is_refused(manifest: Manifest, name: str) -> None:
    check_files(listing(manifest, {"bank.npy": 100, "thumbnails/00002.jpg": 100}))
    with pytest.raises(KitError, match=rf"^manifest\.json: lists {name}, which is not a file of a kit"):
        check_files(listing(manifest, {"bank.npy": 100, name: 100}))


@pytest.mark.parametrize(
    "name",
    ["CON", "con.jpg", "nul.tar.gz", "aux/model.onnx", "COM1", "thumbnails/LPT9.jpg", "model.", "a/prn", "x" * 256],
)
def test_a_name_that_windows_does_not_accept_is_refused(manifest: Manifest, name: str) -> None:
    with pytest.raises(KitError, match=r"^manifest\.json: files"):
        listing(manifest, {name: 1})


@pytest.mark.parametrize("name", ["console.onnx", "com10", "a.con", "nulls/aux-1.npy", "lpt"])
def test_names_that_only_begin_like_those_are_valid(manifest: Manifest, name: str) -> None:
    assert set(listing(manifest, {name: 1}).files) == {name}


def test_two_roles_with_names_that_differ_only_in_case_are_refused(manifest: Manifest) -> None:
    images = {"file": "Model.onnx", "count": 3}
    with pytest.raises(KitError, match="names that differ only in case"):
        check_files(listing(manifest, {"model.onnx": 1, "Model.onnx": 1}, normal_images=images))


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("model.onnx", 2**31 - 1),
        ("bank.npy", 4096 + 3 * 4 * 4),
        ("normal_images.json", 16 + 3 * 32768),
        ("thumbnails/00001.jpg", 262144),
    ],
)
def test_a_file_has_the_size_that_its_role_allows(manifest: Manifest, name: str, largest: int) -> None:
    check_files(listing(manifest, {name: largest}))
    with pytest.raises(KitError, match=rf"^{name}: manifest\.json states .*, and this file has at most "):
        check_files(listing(manifest, {name: largest + 1}))


@pytest.mark.parametrize("levels", [1, 4])
def test_an_index_of_any_plausible_height_fits(manifest: Manifest, levels: int) -> None:
    links = 4 + 4 * 16
    element = 4 + 4 * 32 + 4 * 4 + 8
    largest = largest_sizes(listing(manifest, {}))["bank.hnsw"]
    assert 96 + 3 * (element + 4 + levels * links) < largest < 10_000


def test_every_kit_of_the_tests_has_the_sizes_of_its_roles(toy_kit: Path, patch_kit: Path, int8_kit: Path) -> None:
    for path in (toy_kit, patch_kit, int8_kit):
        with Kit.open(path) as kit:
            largest = largest_sizes(kit.manifest)
            assert set(kit.manifest.files) <= set(largest)


def test_a_forged_count_costs_nothing(manifest: Manifest) -> None:
    document = json.loads(manifest.to_json())
    document["normal_images"]["count"] = document["models"]["fp32"]["banks"]["images"]["count"] = 2**31 - 1
    assert set(largest_sizes(parse_manifest(json.dumps(document).encode()))) == {"model.onnx", "bank.npy"} | {
        "normal_images.json"
    }
