"""Every byte of a kit is checked before anything parses it."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.errors import KitError
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal

Check = Callable[[Path, str], None]
MakeKit = Callable[..., Path]
MakeZip = Callable[..., Path]
CONTENT = ["model.onnx", "bank.npy", "normal_images.json", "thumbnails/00000.jpg", "thumbnails/00001.jpg"]


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not installed")
def test_the_digest_is_one_that_sha256sum_checks(small_kit: Path) -> None:
    command = ["sha256sum", "--strict", "-c", "manifest.sha256"]
    assert subprocess.run(command, cwd=small_kit, capture_output=True, check=False).returncode == 0
    (small_kit / "manifest.json").write_bytes((small_kit / "manifest.json").read_bytes() + b" ")
    assert subprocess.run(command, cwd=small_kit, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "thumbnails/Thumbs.db", "desktop.ini", "._model.onnx"])
def test_files_that_operating_systems_add_are_ignored(small_kit: Path, name: str, make_zip: MakeZip) -> None:
    (small_kit / name).write_bytes(b"added")
    Kit.open(small_kit).close()
    Kit.open(make_zip(small_kit)).close()
    Kit.open(make_zip(small_kit, prefix="part.kit/")).close()


def test_a_zip_made_by_the_macos_finder_opens(small_kit: Path, make_zip: MakeZip) -> None:
    extra = {"__MACOSX/part.kit/._model.onnx": b"fork", "__MACOSX/._part.kit": b"fork", "part.kit/.DS_Store": b"x"}
    with Kit.open(make_zip(small_kit, prefix="part.kit/", extra=extra)) as opened:
        assert {path.name for path in opened.root.iterdir()} == {name.partition("/")[0] for name in CONTENT}


# --- a damaged kit ---------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_altered_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, make_kit: MakeKit, assert_refused: Check, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "altered.kit"
    if not folder.exists():
        make_kit(folder)
    names = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(altered)
    try:
        assert_refused(folder, r"SHA-256 differs from manifest\.(json|sha256)")
    finally:
        path.write_bytes(whole)
    Kit.open(folder).close()


@pytest.mark.parametrize("name", [*CONTENT, "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("change", ["missing", "longer", "folder instead"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_file_that_is_missing_or_longer_is_named(
    small_kit: Path, name: str, change: str, as_zip: bool, assert_refused: Check, make_zip: MakeZip
) -> None:
    path = small_kit / name
    data = path.read_bytes()
    path.unlink()
    if change == "longer":
        path.write_bytes(data + b"\0")
    elif change == "folder instead":
        path.mkdir()
    named = name if not name.startswith("manifest") else "manifest.json"
    reason = "is missing" if change != "longer" else "more bytes|SHA-256 differs"
    assert_refused(make_zip(small_kit) if as_zip else small_kit, f"({name}|{named}).*({reason})")


def test_a_shorter_file_is_named_with_both_sizes(small_kit: Path, assert_refused: Check) -> None:
    size = (small_kit / "model.onnx").stat().st_size
    (small_kit / "model.onnx").write_bytes(b"short")
    assert_refused(small_kit, f": model.onnx: 5 bytes, but manifest.json states {size}; copy the kit again$")


def test_two_swapped_files_are_found(small_kit: Path, assert_refused: Check) -> None:
    (small_kit / "thumbnails" / "00000.jpg").rename(small_kit / "x")
    (small_kit / "thumbnails" / "00001.jpg").rename(small_kit / "thumbnails" / "00000.jpg")
    (small_kit / "x").rename(small_kit / "thumbnails" / "00001.jpg")
    assert_refused(small_kit, "thumbnails/00000.jpg: 0 bytes")


@pytest.mark.parametrize("name", ["extra.bin", "thumbnails/extra.jpg", "model.onnx.data", ".hidden", "deep/er/x"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_file_that_is_not_listed_is_named(
    small_kit: Path, name: str, as_zip: bool, assert_refused: Check, make_zip: MakeZip
) -> None:
    (small_kit / name).parent.mkdir(parents=True, exist_ok=True)
    (small_kit / name).write_bytes(b"x")
    assert_refused(make_zip(small_kit) if as_zip else small_kit, f": {name} is not listed in manifest.json")


@pytest.mark.parametrize("name", ["model.onnx", "bank.npy", "normal_images.json"])
def test_a_kit_sealed_without_a_required_file_is_refused(
    tmp_path: Path, name: str, make_kit: MakeKit, assert_refused: Check
) -> None:
    kit = make_kit(tmp_path / "part.kit", {name: None})
    assert_refused(kit, f": manifest.json: does not list {name}; export the kit again$")


def test_the_files_of_every_model_are_required(small_kit: Path, manifest: Manifest, assert_refused: Check) -> None:
    document = json.loads(manifest.to_json())
    index = {"file": "graph.hnsw", "m": 8, "ef_construction": 50, "ef": 50, "recall": 1, "queries": 3}
    fp32 = document["models"]["fp32"]
    document["models"]["int8"] = fp32 | {
        "file": "other.onnx",
        "banks": {"images": fp32["banks"]["images"] | {"index": index}},
    }
    seal(small_kit, parse_manifest(json.dumps(document).encode()))
    assert_refused(small_kit, "does not list graph.hnsw, other.onnx")


def with_manifest(kit: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The kit with a changed manifest, and with the digest of that manifest."""
    document = json.loads((kit / "manifest.json").read_bytes())
    change(document)
    text = json.dumps(document).encode()
    (kit / "manifest.json").write_bytes(text)
    (kit / "manifest.sha256").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"  manifest.json\n")
    return kit


def test_a_newer_format_is_refused_even_if_every_hash_is_right(small_kit: Path, assert_refused: Check) -> None:
    assert_refused(with_manifest(small_kit, lambda document: document.update(format_version=3)), "the kit has format 3")


@pytest.mark.parametrize("name", ["../part.zip", "/etc/hostname", "thumbnails/../model.onnx", "C:/x"])
def test_a_manifest_cannot_list_a_file_outside_the_kit(small_kit: Path, name: str, assert_refused: Check) -> None:
    def add(document: dict[str, Any]) -> None:
        document["files"][name] = document["files"]["bank.npy"]

    assert_refused(with_manifest(small_kit, add), "files")


def test_a_model_cannot_use_a_file_outside_the_kit(small_kit: Path, assert_refused: Check) -> None:
    def point_outside(document: dict[str, Any]) -> None:
        document["models"]["fp32"]["file"] = "../model.onnx"

    assert_refused(with_manifest(small_kit, point_outside), "models.fp32.file")


@pytest.mark.parametrize(
    "digest", [b"", b"\0" * 200, b"0" * 64, ("0" * 64 + "  manifest.json\n").encode()], ids=["empty", "zeros", "a", "b"]
)
def test_another_digest_is_refused(small_kit: Path, digest: bytes, assert_refused: Check) -> None:
    (small_kit / "manifest.sha256").write_bytes(digest)
    assert_refused(small_kit, ": manifest.json: SHA-256 differs from manifest.sha256; copy the kit again$")


def dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege, and there are no named pipes")
def test_a_dangling_link_or_a_pipe_is_a_missing_file_and_is_not_waited_for(
    tmp_path: Path, make_kit: MakeKit, in_child: Callable[..., str]
) -> None:
    names = ["manifest.json", "manifest.sha256", "model.onnx"]
    for make in (dangling_link, link_to_itself, os.mkfifo):
        for name in names:
            kit = make_kit(tmp_path / make.__name__ / f"{name}.kit")
            (kit / name).unlink()
            make(kit / name)
    code = """
import sys
from pathlib import Path
from msc_edge.errors import KitError
from msc_edge.kit.opening import Kit
for kit in sorted(Path(sys.argv[1]).glob("*/*.kit")):
    try:
        Kit.open(kit)
    except KitError as error:
        print(str(error).removeprefix(f"{kit}: "))
"""
    lines = in_child(code, tmp_path).splitlines()
    assert len(lines) == 9
    for line, name in zip(lines, 3 * sorted(names), strict=True):
        assert line.startswith(f"{name} is missing")


# --- a damaged or malicious zip --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "a path outside the kit; do not use it"),
        ("thumbnails/../../evil", "a path outside the kit; do not use it"),
        ("/msc-edge-evil", "a path outside the kit; do not use it"),
        ("..\\evil", "a path outside the kit; do not use it"),
        ("C:evil", "a path outside the kit; do not use it"),
        ("C:/evil", "a path outside the kit; do not use it"),
        ("../.DS_Store", "a path outside the kit; do not use it"),
        ("__MACOSX/../../evil", "a path outside the kit; do not use it"),
        ("evil", "evil is not listed"),
        ("other/evil", "other/evil is not listed"),
    ],
)
def test_a_zip_with_a_path_outside_the_kit_is_refused_and_writes_nothing(
    small_kit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reason: str,
    assert_refused: Check,
    make_zip: MakeZip,
) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    archive = make_zip(small_kit, extra={name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    assert_refused(archive, reason)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/msc-edge-evil").exists()


def test_a_zip_with_a_link_is_refused(small_kit: Path, assert_refused: Check, make_zip: MakeZip) -> None:
    (small_kit / "model.onnx").unlink()
    archive = make_zip(small_kit)
    link = zipfile.ZipInfo("model.onnx")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    assert_refused(archive, "the zip holds a link, 'model.onnx'; do not use it")


def test_a_zip_with_a_name_twice_is_refused(small_kit: Path, assert_refused: Check, make_zip: MakeZip) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(make_zip(small_kit), "a") as archive:
        archive.writestr("model.onnx", b"another model")
    assert_refused(small_kit.with_suffix(".zip"), "holds 'model.onnx' twice; copy the kit again")


def test_a_zip_of_two_kits_is_refused(small_kit: Path, assert_refused: Check, make_zip: MakeZip) -> None:
    archive = make_zip(small_kit, prefix="one/")
    with zipfile.ZipFile(archive, "a") as file:
        for path in small_kit.rglob("*"):
            file.write(path, f"two/{path.relative_to(small_kit).as_posix()}")
    assert_refused(archive, ": manifest.json is missing")


def small_zip_of(kit: Path, path: Path, method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in kit.rglob("*"):
            archive.write(file, file.relative_to(kit).as_posix())
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_a_zip_in_another_method_is_refused(
    small_kit: Path, tmp_path: Path, method: int, assert_refused: Check
) -> None:
    assert_refused(small_zip_of(small_kit, tmp_path / "part.zip", method), "in another method than deflate")


def test_a_zip_that_unpacks_to_far_more_than_a_kit_is_refused_before_it_is_unpacked(
    tmp_path: Path, make_kit: MakeKit, make_zip: MakeZip, monkeypatch: pytest.MonkeyPatch, assert_refused: Check
) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    kit = make_kit(tmp_path / "part.kit", {"model.onnx": bytes(20 << 20)})
    Kit.open(kit).close()  # large, but on this disk already
    assert_refused(make_zip(kit), r"its .* kB unpack to 21.0 MB, which no kit does; do not use it$")
    assert not list(unpacked.iterdir())
    Kit.open(make_zip(make_kit(tmp_path / "fine.kit", {"model.onnx": bytes(10 << 20)}))).close()


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_manifest_larger_than_any_kit_needs_is_not_parsed(
    small_kit: Path, as_zip: bool, make_zip: MakeZip, assert_refused: Check
) -> None:
    with_manifest(small_kit, lambda document: document.update(extensions={"many": [{}] * (3 << 20)}))
    assert_refused(make_zip(small_kit) if as_zip else small_kit, ": manifest.json: larger than 8 MiB")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_zip_is_one_kit_error(
    small_kit: Path, share: float, assert_refused: Check, make_zip: MakeZip
) -> None:
    archive = make_zip(small_kit)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    assert_refused(archive, "part.zip: not a zip, or a damaged one")


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_damaged_zip_is_refused_or_is_still_the_same_kit(
    tmp_path_factory: pytest.TempPathFactory,
    make_kit: MakeKit,
    make_zip: MakeZip,
    content: dict[str, bytes],
    data: st.DataObject,
) -> None:
    """Some bytes of a zip, such as its dates, do not affect the files in it."""
    base = tmp_path_factory.getbasetemp() / "damaged"
    if not base.exists():
        make_zip(make_kit(base / "part.kit"))
    whole = bytearray((base / "part.zip").read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    (base / "now.zip").write_bytes(whole)
    try:
        with Kit.open(base / "now.zip") as opened:
            assert {name: opened.file(name).read_bytes() for name in content} == content
    except KitError:
        pass


def test_an_encrypted_zip_is_one_kit_error(small_kit: Path, assert_refused: Check, make_zip: MakeZip) -> None:
    archive = make_zip(small_kit)
    whole = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = whole.find(signature)
        while at >= 0:
            whole[at + flags] |= 1
            at = whole.find(signature, at + 4)
    archive.write_bytes(whole)
    assert_refused(archive, "encrypted")
