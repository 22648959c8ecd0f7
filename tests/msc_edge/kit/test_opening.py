"""Kit.open: paths, and the files of a kit whose hashes are right."""

import contextlib
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.errors import KitError, OutputError
from msc_edge.kit import opening
from msc_edge.kit.opening import Kit
from msc_edge.left_over import hidden_beside, lock

Check = Callable[[Path, str], None]


def test_an_open_kit_gives_its_files(small_kit: Path, content: dict[str, bytes], bank: np.ndarray) -> None:
    with Kit.open(small_kit) as kit:
        np.testing.assert_array_equal(kit.embeddings("fp32"), bank)
        assert kit.normal_images() == ["a.png", "sub/größe.png", "c.png"]
        assert {name: kit.file(name).read_bytes() for name in content} == content
        assert set(kit.manifest.files) == set(content)
        assert kit.model("fp32") is kit.manifest.models["fp32"]
        assert (kit.path, kit.root, kit.format_version) == (small_kit, small_kit, 2)
        with pytest.raises(KeyError):
            kit.model("int8")
    assert small_kit.is_dir(), "closing must not remove the kit itself"


def test_the_identity_of_a_kit_is_its_name_and_the_hash_of_its_manifest(
    small_kit: Path, make_zip: Callable[..., Path]
) -> None:
    digest = (small_kit / "manifest.sha256").read_text().split()[0]
    for path in (small_kit, make_zip(small_kit)):
        with Kit.open(path) as kit:
            assert (kit.identity.name, kit.identity.sha256) == ("small", digest)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "deflated"])
@pytest.mark.parametrize("prefix", ["", "part.kit/", "größe (1)/", "./"])
def test_a_zip_of_the_files_or_of_the_folder_is_the_same_kit(
    small_kit: Path,
    make_zip: Callable[..., Path],
    content: dict[str, bytes],
    bank: np.ndarray,
    prefix: str,
    stored: bool,
) -> None:
    archive = make_zip(small_kit, prefix=prefix, stored=stored)
    with Kit.open(archive) as kit, Kit.open(small_kit) as folder:
        assert kit.manifest == folder.manifest
        np.testing.assert_array_equal(kit.embeddings("fp32"), bank)
        assert {name: kit.file(name).read_bytes() for name in content} == content
        assert kit.path == archive
        unpacked = kit.root
        assert unpacked != small_kit
    assert not unpacked.exists()


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone", r"cannot be opened \(No such file or directory\); check the path"),
        ("gone/deeper", "cannot be opened"),
        ("x" * 300, r"cannot be opened \(File name too long\)"),
        ("nul\0byte", r"cannot be opened \(embedded null byte\)"),
        ("empty", ": manifest.json is missing: not a kit, or an incomplete one"),
        ("notes.txt", r"notes.txt: not a zip, or a damaged one"),
        ("notes.txt/kit", "cannot be opened"),
        ("run", r"this is a training run; export a kit from it: msc-edge export RUN --out KIT"),
    ],
)
def test_a_path_without_a_kit(tmp_path: Path, path: str, reason: str, assert_refused: Check) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("notes")
    assert_refused(tmp_path / path, reason)


def test_an_interrupted_replacement_is_named(small_kit: Path, assert_refused: Check) -> None:
    """Where it cannot be put back, as on Windows. Here another process seems to be at work: it has a lock."""
    aside = hidden_beside(small_kit, ".replaced")
    small_kit.rename(aside)
    with lock(aside):
        assert_refused(small_kit, f"a replacement was interrupted: rename {aside} to part.kit$")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_a_device_is_refused(assert_refused: Check) -> None:
    assert_refused(Path("/dev/zero"), "neither a folder nor a .zip")


@pytest.mark.usefixtures("enforced_permissions")
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "bank.npy", "thumbnails", "."])
def test_missing_permissions_are_one_kit_error(
    small_kit: Path, name: str, assert_refused: Check, make_zip: Callable[..., Path]
) -> None:
    mode = stat.S_IMODE((small_kit / name).stat().st_mode)
    (small_kit / name).chmod(0)
    try:
        assert_refused(small_kit, "check the permissions|is missing")
    finally:
        (small_kit / name).chmod(mode)
    archive = make_zip(small_kit)
    archive.chmod(0)
    assert_refused(archive, "part.zip: cannot be read: Permission denied; check the permissions")


# --- unpacking -------------------------------------------------------------------------------------------------------


def test_a_file_that_unpacks_to_more_than_it_should_is_not_unpacked(
    small_kit: Path, make_zip: Callable[..., Path], content: dict[str, bytes]
) -> None:
    pytest.importorskip("resource", reason="POSIX limits the size of files")
    (small_kit / "model.onnx").unlink()
    archive = make_zip(small_kit, extra={"model.onnx": bytes(20 << 20)})
    assert archive.stat().st_size < 90_000
    code = """
import resource, sys
from msc_edge.kit import opening
from msc_edge.kit.opening import Kit
from msc_edge.left_over import hidden_beside, lock
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))  # writing more would be an OutputError
Kit.open(sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", code, str(archive)], timeout=60, capture_output=True, check=False)
    expected = f"model.onnx: more bytes, but manifest.json states {len(content['model.onnx'])}; copy the kit again"
    assert expected in done.stderr.decode()


def test_no_unpacked_file_stays_of_a_refused_or_deleted_kit(
    small_kit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_zip: Callable[..., Path],
    assert_refused: Check,
) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    good = make_zip(small_kit).rename(tmp_path / "good.zip")
    bad = make_zip(small_kit, extra={"unlisted": b""})
    assert_refused(bad, "unlisted is not listed")
    assert not list(unpacked.iterdir())
    kit = Kit.open(good)
    assert list(unpacked.iterdir())
    with pytest.warns(ResourceWarning, match="Implicitly cleaning up"):
        del kit  # CPython collects it at once
    assert not list(unpacked.iterdir())


def test_a_missing_temporary_folder_is_an_output_error(
    small_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_zip: Callable[..., Path]
) -> None:
    archive = make_zip(small_kit)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="cannot be unpacked to the temporary folder: No such file"):
        Kit.open(archive)


# --- files with the right hash and the wrong content -----------------------------------------------------------------

BANK = np.eye(3, 4, dtype=np.float32)
NOT_FINITE = BANK.copy()
NOT_FINITE[0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (BANK.astype(np.float64), "holds float64"),
        (BANK[:2], r"holds float32 \(2, 4\), but manifest.json states float32 \(3, 4\)"),
        (BANK[:, :3], r"holds float32 \(3, 3\)"),
        (BANK.ravel(), r"holds float32 \(12,\)"),
        (2 * BANK, "not all rows have unit length"),
        (0 * BANK, "not all rows have unit length"),
        (NOT_FINITE, "not all rows have unit length"),
        (np.float32(1e30) * BANK, "not all rows have unit length"),
        (lambda data: data[:-1], "numpy cannot read it"),
        (np.array([[print]], dtype=object), "numpy cannot read it"),
        (lambda _: pickle.dumps(BANK), "numpy cannot read it"),
        (lambda _: b"", "numpy cannot read it"),
        (lambda _: b"PK\x03\x04" + bytes(100), "numpy cannot read it"),
        (lambda data: data.replace(b"(3, 4)", b"(9, 9)"), "numpy cannot read it"),
        (lambda data: data.replace(b"(3, 4), }" + b" " * 12, b"(3, 400000000000), }"), "numpy cannot read it"),
    ],
    ids=[
        "float64",
        "fewer rows",
        "fewer columns",
        "one dimension",
        "long rows",
        "zero rows",
        "nan",
        "rows whose length is infinite",
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
def test_another_array_than_the_manifest_states_is_refused(
    tmp_path: Path,
    change: np.ndarray | Callable[[bytes], bytes],
    reason: str,
    mapped: bool,
    monkeypatch: pytest.MonkeyPatch,
    make_kit: Callable[..., Path],
    npy: Callable[[np.ndarray], bytes],
) -> None:
    if mapped:
        monkeypatch.setattr(opening, "_MAPPED_FROM", 0)
    data = npy(change) if isinstance(change, np.ndarray) else change(npy(BANK))
    kit = Kit.open(make_kit(tmp_path / "part.kit", {"bank.npy": data}))
    with pytest.raises(KitError, match=f"^bank.npy: .*{reason}"):
        kit.embeddings("fp32")


@given(at=st.integers(8, 127), byte=st.integers(0, 255), length=st.integers(20, 200))
@settings(max_examples=300, deadline=None)
def test_a_bank_with_any_header_is_an_array_or_one_kit_error(
    tmp_path_factory: pytest.TempPathFactory,
    make_kit: Callable[..., Path],
    npy: Callable[[np.ndarray], bytes],
    at: int,
    byte: int,
    length: int,
) -> None:
    """numpy parses the header as Python: brackets that do not close raise an error of Python's tokenizer."""
    folder = tmp_path_factory.getbasetemp() / "headers.kit"
    if not folder.exists():
        make_kit(folder)
    kit = Kit.open(folder)
    data = bytearray(npy(BANK))
    data[at] = byte
    (folder / "bank.npy").write_bytes(data[:length])
    with contextlib.suppress(KitError):
        kit.embeddings("fp32")
    (folder / "bank.npy").write_bytes(npy(BANK))


def test_a_large_bank_is_mapped_and_the_same(
    small_kit: Path, tmp_path: Path, bank: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_MAPPED_FROM", 0)
    monkeypatch.setattr(opening, "_ROWS_AT_ONCE", 2)
    mapped = Kit.open(small_kit).embeddings("fp32")
    np.testing.assert_array_equal(mapped, bank)
    assert isinstance(mapped.base, np.memmap)
    assert not mapped.flags.writeable
    with Kit.open(shutil.make_archive(str(tmp_path / "part"), "zip", small_kit)) as zipped:
        unpacked = zipped.embeddings("fp32")
    np.testing.assert_array_equal(unpacked, bank)  # after its file was removed
    if Path("/proc/self/maps").exists():
        maps = Path("/proc/self/maps").read_text()
        assert str(small_kit / "bank.npy") in maps
        assert "msc-edge-kit-" not in maps


def test_a_bank_in_column_order_is_the_same_bank(
    tmp_path: Path, bank: np.ndarray, make_kit: Callable[..., Path], npy: Callable[[np.ndarray], bytes]
) -> None:
    kit = Kit.open(make_kit(tmp_path / "part.kit", {"bank.npy": npy(np.asfortranarray(bank))}))
    np.testing.assert_array_equal(kit.embeddings("fp32"), bank)
    assert kit.embeddings("fp32").flags.c_contiguous


@pytest.mark.parametrize(
    "names",
    [
        b"",
        b"{}",
        b'["a", "b"]',
        b'"abc"',
        b"\xff",
        b"[" * 90_000,
        b"null",
        b'["a", "b", 3]',
        b'["a", "b", null]',
        b'["a", "b", ["c"]]',
        b'["a", "b", "%s"]' % (b"x" * 4097),
    ],
    ids=lambda names: repr(names[:20]),
)
def test_names_of_normal_images_that_do_not_fit_the_bank(
    tmp_path: Path, names: bytes, make_kit: Callable[..., Path]
) -> None:
    kit = Kit.open(make_kit(tmp_path / "part.kit", {"normal_images.json": names}))
    with pytest.raises(KitError, match=r"^normal_images\.json: .*export the kit again$"):
        kit.normal_images()


def test_a_closed_zip_says_that_it_is_closed(small_kit: Path, make_zip: Callable[..., Path]) -> None:
    kit = Kit.open(make_zip(small_kit))
    kit.close()
    with pytest.raises(KitError, match="this kit was closed; open it again"):
        kit.embeddings("fp32")
