import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import msc_edge.kit.opening as kit_module
from msc_edge.errors import KitError, OutputError
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.opening import Kit, seal

BANK = np.eye(3, 4, dtype=np.float32)
DIGEST = "0" * 64


def nothing_is_forbidden() -> bool:
    """To root, and on Windows, where permissions are not in the mode of a file."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0)
        return os.access(file.name, os.R_OK)


FORBIDS = pytest.mark.skipif(nothing_is_forbidden(), reason="nothing is forbidden to this user")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


CONTENT: dict[str, bytes] = {
    "model.onnx": b"opaque to the container",
    "bank.npy": npy(BANK),
    "normals.json": json.dumps(["a.png", "sub/größe.png", "c.png"]).encode(),
    "thumbnails/00000.jpg": b"\xff\xd8 small",
    "thumbnails/00001.jpg": b"",
}


def made_up_manifest() -> Manifest:
    limit = {"score": 0.2, "target_rate": 0.5, "expected_rate": 0.5}
    document = {
        "format_version": 1,
        "msc_edge_version": "0.1.0",
        "decode": {},
        "preprocessing": {"preset": "whole-frame", "image_size": 32, "resize": "stretch", "resize_to": 32},
        "model": {"backbone": "resnet18", "stop_at": None, "dim": 4, "precision": "fp32", "opset": 20},
        "bank": {"count": 3, "dim": 4, "k": 2, "search": "exact", "index": None},
        "calibration": {
            "scores": [0.2],
            "warn_rate": 0.5,
            "reject_rate": 0.5,
            "limits": {"warn": limit, "reject": limit},
        },
        "provenance": {
            "created": "2026-01-01T00:00:00Z",
            "recipe": {},
            "weights": {"source": "x", "sha256": DIGEST, "licence": "x"},
            "seed": 0,
            "images": 4,
            "data_fingerprint": DIGEST,
            "versions": {},
        },
        "parity": None,
        "files": {},
    }
    return parse_manifest(json.dumps(document).encode())


def sealed(folder: Path, content: dict[str, bytes] = CONTENT) -> Path:
    """A kit of small made-up files."""
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    seal(folder, made_up_manifest())
    return folder


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return sealed(tmp_path / "part.kit")


def zipped(kit: Path, *, prefix: str = "", extra: dict[str, bytes] | None = None, stored: bool = False) -> Path:
    target = kit.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(kit.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(kit).as_posix())
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return target


def refused(path: Path, reason: str) -> None:
    with pytest.raises(KitError, match=reason) as refusal:
        Kit.open(path)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 4


# --- a whole kit -----------------------------------------------------------------------------------------------------


def test_a_sealed_folder_opens_and_gives_what_was_put_in(kit: Path) -> None:
    with Kit.open(kit) as opened:
        np.testing.assert_array_equal(opened.embeddings(), BANK)
        assert opened.normals() == ["a.png", "sub/größe.png", "c.png"]
        assert {name: opened.path(name).read_bytes() for name in CONTENT} == CONTENT
        assert set(opened.manifest.files) == set(CONTENT)
    assert kit.is_dir(), "closing must not remove the kit itself"


def test_the_manifest_holds_sha256_and_size_of_every_file(kit: Path) -> None:
    files = json.loads((kit / "manifest.json").read_bytes())["files"]
    assert files == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in CONTENT.items()
    }


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not installed")
def test_the_digest_is_one_that_sha256sum_checks(kit: Path) -> None:
    command = ["sha256sum", "--strict", "-c", "manifest.sha256"]
    assert subprocess.run(command, cwd=kit, capture_output=True, check=False).returncode == 0
    (kit / "manifest.json").write_bytes((kit / "manifest.json").read_bytes() + b" ")
    assert subprocess.run(command, cwd=kit, capture_output=True, check=False).returncode != 0


def test_sealing_again_takes_in_what_was_added(kit: Path) -> None:
    (kit / "thumbnails" / "00002.jpg").write_bytes(b"new")
    refused(kit, "00002.jpg is not listed")
    assert "thumbnails/00002.jpg" in seal(kit, made_up_manifest()).files
    Kit.open(kit).close()


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "deflated"])
@pytest.mark.parametrize("prefix", ["", "part.kit/", "größe (1)/", "./"])
def test_a_zip_of_the_files_or_of_the_folder_is_the_same_kit(kit: Path, prefix: str, stored: bool) -> None:
    with Kit.open(zipped(kit, prefix=prefix, stored=stored)) as opened, Kit.open(kit) as folder:
        assert opened.manifest == folder.manifest
        np.testing.assert_array_equal(opened.embeddings(), BANK)
        assert {name: opened.path(name).read_bytes() for name in CONTENT} == CONTENT
        unpacked = opened.root
        assert unpacked != kit
    assert not unpacked.exists()


@pytest.mark.parametrize("litter", [".DS_Store", "Thumbs.db", "thumbnails/Thumbs.db", "desktop.ini", "._model.onnx"])
def test_what_operating_systems_leave_in_folders_does_no_harm(kit: Path, litter: str) -> None:
    (kit / litter).write_bytes(b"litter")
    Kit.open(kit).close()
    Kit.open(zipped(kit)).close()
    Kit.open(zipped(kit, prefix="part.kit/")).close()


def test_a_zip_made_by_the_macos_finder_opens(kit: Path) -> None:
    extra = {"__MACOSX/part.kit/._model.onnx": b"fork", "__MACOSX/._part.kit": b"fork", "part.kit/.DS_Store": b"x"}
    with Kit.open(zipped(kit, prefix="part.kit/", extra=extra)) as opened:
        assert {path.name for path in opened.root.iterdir()} == {name.partition("/")[0] for name in CONTENT}


# --- a kit that is not as it was written -----------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_altered_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "altered.kit"
    if not folder.exists():
        sealed(folder)
    names = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(altered)
    try:
        refused(folder, r"SHA-256 differs from manifest\.(json|sha256)")
    finally:
        path.write_bytes(whole)
    Kit.open(folder).close()


@pytest.mark.parametrize("name", [*CONTENT, "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("change", ["missing", "longer", "folder instead"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_file_that_is_missing_or_longer_is_named(kit: Path, name: str, change: str, as_zip: bool) -> None:
    path = kit / name
    data = path.read_bytes()
    path.unlink()
    if change == "longer":
        path.write_bytes(data + b"\0")
    elif change == "folder instead":
        path.mkdir()
    named = name if not name.startswith("manifest") else "manifest.json"
    reason = "is missing" if change != "longer" else "more bytes|SHA-256 differs"
    refused(zipped(kit) if as_zip else kit, f"({name}|{named}).*({reason})")


def test_a_shorter_file_says_how_long_it_is(kit: Path) -> None:
    (kit / "model.onnx").write_bytes(b"short")
    refused(kit, f": model.onnx: 5 bytes, and manifest.json says {len(CONTENT['model.onnx'])}; copy the kit again$")


def test_two_files_that_changed_places_are_found(kit: Path) -> None:
    (kit / "thumbnails" / "00000.jpg").rename(kit / "x")
    (kit / "thumbnails" / "00001.jpg").rename(kit / "thumbnails" / "00000.jpg")
    (kit / "x").rename(kit / "thumbnails" / "00001.jpg")
    refused(kit, "thumbnails/00000.jpg: 0 bytes")


@pytest.mark.parametrize("stranger", ["extra.bin", "thumbnails/extra.jpg", "model.onnx.data", ".hidden", "deep/er/x"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_file_that_is_not_listed_is_named(kit: Path, stranger: str, as_zip: bool) -> None:
    (kit / stranger).parent.mkdir(parents=True, exist_ok=True)
    (kit / stranger).write_bytes(b"x")
    refused(zipped(kit) if as_zip else kit, f": {stranger} is not listed in manifest.json")


@pytest.mark.parametrize("name", ["model.onnx", "bank.npy", "normals.json"])
def test_a_kit_sealed_without_a_part_is_none(tmp_path: Path, name: str) -> None:
    rest = {each: data for each, data in CONTENT.items() if each != name}
    refused(sealed(tmp_path / "part.kit", rest), f": manifest.json: does not list {name}")


def test_a_kit_that_says_it_has_an_index_must_have_it(kit: Path) -> None:
    document = json.loads(made_up_manifest().to_json())
    document["bank"]["index"] = {"m": 8, "ef_construction": 50, "ef": 50, "recall": 1, "queries": 3}
    seal(kit, parse_manifest(json.dumps(document).encode()))
    refused(kit, "does not list bank.hnsw")


def rewritten(kit: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The kit with a changed manifest, and the digest to fit."""
    document = json.loads((kit / "manifest.json").read_bytes())
    change(document)
    text = json.dumps(document).encode()
    (kit / "manifest.json").write_bytes(text)
    (kit / "manifest.sha256").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"  manifest.json\n")
    return kit


def test_another_format_version_is_refused_even_if_every_hash_fits(kit: Path) -> None:
    refused(rewritten(kit, lambda document: document.update(format_version=2)), "format_version is 2")


@pytest.mark.parametrize("name", ["../part.zip", "/etc/hostname", "thumbnails/../model.onnx", "C:/x"])
def test_a_manifest_cannot_list_a_file_outside_the_kit(kit: Path, name: str) -> None:
    refused(rewritten(kit, lambda document: document["files"].update({name: document["files"]["bank.npy"]})), "files")


@pytest.mark.parametrize(
    "digest", [b"", b"\0" * 200, b"0" * 64, ("0" * 64 + "  manifest.json\n").encode()], ids=["empty", "zeros", "a", "b"]
)
def test_a_digest_of_something_else_is_refused(kit: Path, digest: bytes) -> None:
    (kit / "manifest.sha256").write_bytes(digest)
    refused(kit, ": manifest.json: SHA-256 differs from manifest.sha256; copy the kit again$")


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(link_to_nowhere, marks=pytest.mark.skipif(os.name == "nt", reason="links need a privilege")),
        pytest.param(link_to_itself, marks=pytest.mark.skipif(os.name == "nt", reason="links need a privilege")),
        pytest.param(
            getattr(os, "mkfifo", None), marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
        ),
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "model.onnx"])
def test_a_link_to_nowhere_or_a_pipe_is_a_missing_file_and_is_not_waited_for(
    kit: Path, name: str, make: Callable[[Path], None]
) -> None:
    (kit / name).unlink()
    make(kit / name)
    code = "import sys\nfrom msc_edge.kit.opening import Kit\nKit.open(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(kit)], timeout=60, capture_output=True, check=False)
    assert f"KitError: {name} is missing" in done.stderr.decode()


@FORBIDS
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "bank.npy", "thumbnails", "."])
def test_what_may_not_be_read_is_one_kit_error(kit: Path, name: str) -> None:
    mode = stat.S_IMODE((kit / name).stat().st_mode)
    (kit / name).chmod(0)
    try:
        refused(kit, "check the permissions|is missing")
    finally:
        (kit / name).chmod(mode)
    archive = zipped(kit)
    archive.chmod(0)
    refused(archive, "part.zip: cannot be read: Permission denied; check the permissions")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone", "there is no kit here"),
        ("gone/deeper", "there is no kit here"),
        ("x" * 300, "there is no kit here"),
        ("nul\0byte", "there is no kit here"),
        ("empty", ": manifest.json is missing: this is not a kit, or not a whole one"),
        ("notes.txt", r"notes.txt: not a zip, or a damaged one"),
        ("notes.txt/kit", "there is no kit here"),
    ],
)
def test_a_path_that_is_no_kit(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    refused(tmp_path / path, reason)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_a_device_is_no_kit() -> None:
    refused(Path("/dev/zero"), "neither a folder nor a .zip")


# --- a zip that is not as it was written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "leaves the kit; do not use it"),
        ("thumbnails/../../evil", "leaves the kit; do not use it"),
        ("/msc-edge-evil", "leaves the kit; do not use it"),
        ("..\\evil", "leaves the kit; do not use it"),
        ("C:evil", "leaves the kit; do not use it"),
        ("C:/evil", "leaves the kit; do not use it"),
        ("../.DS_Store", "leaves the kit; do not use it"),
        ("__MACOSX/../../evil", "leaves the kit; do not use it"),
        ("evil", "evil is not listed"),
        ("other/evil", "other/evil is not listed"),
    ],
)
def test_a_zip_with_a_path_that_leads_elsewhere_is_refused_and_writes_nothing(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    archive = zipped(kit, extra={name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    refused(archive, reason)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/msc-edge-evil").exists()


def test_a_zip_with_a_link_is_refused(kit: Path) -> None:
    (kit / "model.onnx").unlink()
    archive = zipped(kit)
    link = zipfile.ZipInfo("model.onnx")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    refused(archive, "the zip holds a link, 'model.onnx'; do not use it")


def test_a_zip_with_a_name_twice_is_refused(kit: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(zipped(kit), "a") as archive:
        archive.writestr("model.onnx", b"another model")
    refused(kit.with_suffix(".zip"), "holds 'model.onnx' twice; copy the kit again")


def test_a_zip_of_two_kits_is_none(kit: Path) -> None:
    archive = zipped(kit, prefix="one/")
    with zipfile.ZipFile(archive, "a") as file:
        for path in kit.rglob("*"):
            file.write(path, f"two/{path.relative_to(kit).as_posix()}")
    refused(archive, ": manifest.json is missing")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_zip_is_one_kit_error(kit: Path, share: float) -> None:
    archive = zipped(kit)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    refused(archive, "part.zip: not a zip, or a damaged one")


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_damaged_zip_is_refused_or_is_still_the_same_kit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Some bytes of a zip, such as its dates, say nothing about the files in it."""
    base = tmp_path_factory.getbasetemp() / "damaged"
    if not base.exists():
        zipped(sealed(base / "part.kit"))
    whole = bytearray((base / "part.zip").read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    (base / "now.zip").write_bytes(whole)
    try:
        with Kit.open(base / "now.zip") as opened:
            assert {name: opened.path(name).read_bytes() for name in CONTENT} == CONTENT
    except KitError:
        pass


def test_an_encrypted_zip_is_one_kit_error(kit: Path) -> None:
    archive = zipped(kit)
    whole = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = whole.find(signature)
        while at >= 0:
            whole[at + flags] |= 1
            at = whole.find(signature, at + 4)
    archive.write_bytes(whole)
    refused(archive, "encrypted")


def test_a_file_that_unpacks_to_more_than_it_should_is_not_unpacked(kit: Path) -> None:
    pytest.importorskip("resource", reason="POSIX limits the size of files")
    (kit / "model.onnx").unlink()
    archive = zipped(kit, extra={"model.onnx": bytes(200 << 20)})
    assert archive.stat().st_size < 1 << 20
    code = """
import resource, sys
from msc_edge.kit.opening import Kit
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))  # writing more would be an OutputError
Kit.open(sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", code, str(archive)], timeout=60, capture_output=True, check=False)
    assert "KitError: model.onnx: more bytes, and manifest.json says 23; copy" in done.stderr.decode()


def test_nothing_stays_unpacked_when_a_zip_is_refused_or_forgotten(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    good, bad = zipped(kit).rename(tmp_path / "good.zip"), zipped(kit, extra={"stranger": b""})
    refused(bad, "stranger is not listed")
    assert not list(unpacked.iterdir())
    opened = Kit.open(good)
    assert list(unpacked.iterdir())
    with pytest.warns(ResourceWarning, match="Implicitly cleaning up"):
        del opened  # and CPython collects it at once
    assert not list(unpacked.iterdir())


def test_a_place_to_unpack_that_is_not_there_is_an_output_error(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(kit)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="cannot be unpacked to the temporary folder: No such file"):
        Kit.open(archive)


# --- files whose hashes fit, and which are wrong all the same --------------------------------------------------------

not_a_number = BANK.copy()
not_a_number[0, 0] = np.nan


@pytest.mark.parametrize(
    ("bank", "reason"),
    [
        (npy(BANK.astype(np.float64)), "holds float64"),
        (npy(BANK[:2]), r"holds float32 \(2, 4\), and manifest.json says float32 \(3, 4\)"),
        (npy(BANK[:, :3]), r"holds float32 \(3, 3\)"),
        (npy(BANK.ravel()), r"holds float32 \(12,\)"),
        (npy(2 * BANK), "not all rows have unit length"),
        (npy(0 * BANK), "not all rows have unit length"),
        (npy(not_a_number), "not all rows have unit length"),
        (npy(BANK)[:-1], "not an array that numpy reads"),
        (npy(np.array([[print]], dtype=object)), "not an array that numpy reads"),
        (pickle.dumps(BANK), "not an array that numpy reads"),
        (b"", "not an array that numpy reads"),
        (b"PK\x03\x04" + bytes(100), "not an array that numpy reads"),
        (npy(BANK).replace(b"(3, 4)", b"(9, 9)"), "not an array that numpy reads"),
        (npy(BANK).replace(b"(3, 4), }" + b" " * 12, b"(3, 400000000000), }"), "not an array that numpy reads"),
    ],
    ids=[
        "float64",
        "fewer",
        "narrower",
        "flat",
        "long rows",
        "zero rows",
        "nan",
        "truncated",
        "objects",
        "pickle",
        "empty",
        "npz",
        "too large a shape",
        "far too large a shape",
    ],
)
@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mapped"])
def test_a_bank_that_is_none(
    tmp_path: Path, bank: bytes, reason: str, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mapped:
        monkeypatch.setattr(kit_module, "_MAPPED_FROM", 0)
    kit = Kit.open(sealed(tmp_path / "part.kit", CONTENT | {"bank.npy": bank}))
    with pytest.raises(KitError, match=f"^bank.npy: .*{reason}"):
        kit.embeddings()


def test_a_large_bank_is_mapped_and_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_module, "_MAPPED_FROM", 0)
    monkeypatch.setattr(kit_module, "_ROWS_AT_ONCE", 2)
    folder = sealed(tmp_path / "part.kit", CONTENT)
    bank = Kit.open(folder).embeddings()
    np.testing.assert_array_equal(bank, BANK)
    assert isinstance(bank.base, np.memmap)
    assert not bank.flags.writeable
    with Kit.open(shutil.make_archive(str(tmp_path / "part"), "zip", folder)) as zipped:
        unpacked = zipped.embeddings()
    np.testing.assert_array_equal(unpacked, BANK)  # and its file is gone
    if Path("/proc/self/maps").exists():
        maps = Path("/proc/self/maps").read_text()
        assert str(folder / "bank.npy") in maps
        assert "msc-edge-kit-" not in maps


def test_a_bank_in_column_order_is_the_same_bank(tmp_path: Path) -> None:
    kit = Kit.open(sealed(tmp_path / "part.kit", CONTENT | {"bank.npy": npy(np.asfortranarray(BANK))}))
    np.testing.assert_array_equal(kit.embeddings(), BANK)
    assert kit.embeddings().flags.c_contiguous


@pytest.mark.parametrize("normals", [b"", b"{}", b'["a", "b"]', b'"abc"', b"\xff", b"[" * 100_000, b"null"], ids=repr)
def test_names_of_normals_that_do_not_fit_the_bank(tmp_path: Path, normals: bytes) -> None:
    kit = Kit.open(sealed(tmp_path / "part.kit", CONTENT | {"normals.json": normals}))
    with pytest.raises(KitError, match=r"^normals\.json: .*export the kit again$"):
        kit.normals()
