"""A kit of small files that need no parser, as a folder and as a .zip, and manifest.json with other values."""

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msc_edge.errors import KitError
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal

DIGEST = "0" * 64
# A manifest as docs/kit-format.md describes it, written by hand: what other programs would write.
DOCUMENT: dict[str, Any] = json.loads(Path(__file__).with_name("manifest.json").read_bytes())


@pytest.fixture(scope="session")
def npy() -> Callable[[np.ndarray], bytes]:
    """The bytes of an array in a .npy file."""

    def save(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    return save


@pytest.fixture(scope="session")
def bank() -> np.ndarray:
    """The memory bank of the small kit."""
    return np.eye(3, 4, dtype=np.float32)


@pytest.fixture(scope="session")
def content(npy: Callable[[np.ndarray], bytes], bank: np.ndarray) -> dict[str, bytes]:
    """The files of the small kit, without its manifest."""
    return {
        "model.onnx": b"not parsed when a kit is opened",
        "bank.npy": npy(bank),
        "normal_images.json": json.dumps(["a.png", "sub/größe.png", "c.png"]).encode(),
        "thumbnails/00000.jpg": b"\xff\xd8 small",
        "thumbnails/00001.jpg": b"",
    }


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """The manifest of the small kit, which lists no files yet."""
    limit = {"score": 0.2, "target_rate": 0.5, "expected_rate": 0.5}
    document = {
        "format_version": 2,
        "name": "small",
        "msc_edge_version": "0.1.0",
        "decode": {},
        "preprocessing": {"preset": "whole-frame", "image_size": 32, "resize": "stretch", "resize_to": 32},
        "network": {"backbone": "resnet18", "stop_at": None},
        "normal_images": {"file": "normal_images.json", "count": 3},
        "models": {
            "fp32": {
                "file": "model.onnx",
                "opset": 20,
                "outputs": {"embedding": {"dim": 4}},
                "banks": {"images": {"file": "bank.npy", "count": 3, "k": 2, "search": "exact", "index": None}},
                "calibration": {
                    "scores": [0.2],
                    "warn_rate": 0.5,
                    "reject_rate": 0.5,
                    "limits": {"warn": limit, "reject": limit},
                },
            }
        },
        "default_model": "fp32",
        "provenance": {
            "created": "2026-01-01T00:00:00Z",
            "recipe": {},
            "weights": {"source": "x", "sha256": DIGEST, "licence": "x"},
            "seed": 0,
            "images": 4,
            "data_fingerprint": DIGEST,
            "versions": {},
        },
        "files": {},
    }
    return parse_manifest(json.dumps(document).encode())


@pytest.fixture(scope="session")
def make_kit(content: dict[str, bytes], manifest: Manifest) -> Callable[..., Path]:
    """Write the small kit, with some files changed or, with None, left out."""

    def make(folder: Path, changes: dict[str, bytes | None] | None = None) -> Path:
        for name, data in (content | (changes or {})).items():
            if data is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        seal(folder, manifest)
        return folder

    return make


@pytest.fixture
def small_kit(make_kit: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of the small kit that a test may damage."""
    return make_kit(tmp_path / "part.kit")


@pytest.fixture(scope="session")
def make_zip() -> Callable[..., Path]:
    """Zip a kit as `<kit>.zip` beside it: each name in it begins with `prefix`, and `extra` files are added."""

    def make(kit: Path, *, prefix: str = "", extra: dict[str, bytes] | None = None, stored: bool = False) -> Path:
        target = kit.with_suffix(".zip")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(kit.rglob("*")):
                if path.is_file():
                    archive.write(path, prefix + path.relative_to(kit).as_posix())
            for name, data in (extra or {}).items():
                archive.writestr(name, data)
        return target

    return make


@pytest.fixture(scope="session")
def assert_refused() -> Callable[[Path, str], None]:
    """Check that a kit is refused in one line that matches a pattern."""

    def check(path: Path, reason: str) -> None:
        with pytest.raises(KitError, match=reason) as refusal:
            Kit.open(path)
        assert "\n" not in str(refusal.value)
        assert refusal.value.exit_code == 4

    return check


@pytest.fixture(scope="session")
def changed() -> Callable[..., dict[str, Any]]:
    """A document, manifest.json of this folder unless told, with another value at a dotted place; with `...` without
    that place.
    """

    def change(where: str, value: Any, document: dict[str, Any] | None = None) -> dict[str, Any]:
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

    return change


@pytest.fixture(scope="session")
def parse() -> Callable[[Any], Manifest]:
    """The manifest of a document."""

    def read(document: Any) -> Manifest:
        return parse_manifest(json.dumps(document).encode())

    return read
