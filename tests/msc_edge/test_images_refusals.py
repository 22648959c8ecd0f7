"""Images that are refused: of another bit depth, damaged, too large, or no images."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from msc_edge.errors import SourceError, UnreadableImageError
from msc_edge.images import DecodePolicy, frame_to_rgb, read_image

# Smooth, and with something in every block.
SCENE = cv2.resize(np.random.default_rng(4).integers(0, 256, (6, 8, 3), dtype=np.uint8), (128, 96))


def encoded(rgb: np.ndarray, suffix: str, *parameters: int) -> bytes:
    bgr = rgb if rgb.ndim == 2 else rgb[..., [2, 1, 0, 3][: rgb.shape[2]]]
    return cv2.imencode(suffix, bgr, parameters)[1].tobytes()


def by_pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


TWELVE_BITS = np.random.default_rng(6).integers(0, 4096, (24, 32, 3), dtype=np.uint16)
TWELVE_BITS[0, 0] = 4095


# --- bit depths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize(
    ("bit_depth", "reason"),
    [(8, "it has 16 bits a channel, and 8 are expected"), (10, "its largest value is 4095, more than 10")],
)
def test_a_depth_that_does_not_fit_is_refused(
    tmp_path: Path, suffix: str, bit_depth: int, reason: str, read: Callable[..., np.ndarray]
) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        read(tmp_path, encoded(TWELVE_BITS[..., 0], suffix), bit_depth=bit_depth)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int8, np.int16, np.int32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_tiff_of_any_other_number_type_is_refused(
    tmp_path: Path, kind: type[np.generic], channels: int, bit_depth: int, read: Callable[..., np.ndarray]
) -> None:
    values = np.linspace(0, 100, 8 * 8 * channels).astype(kind).reshape(8, 8, channels)
    with pytest.raises(UnreadableImageError):
        read(tmp_path, encoded(values if channels == 3 else values[..., 0], ".tif"), bit_depth=bit_depth)


@pytest.mark.parametrize("bit_depth", [0, 7, 9, 11, 17, 32, "twelve", None])
def test_a_policy_of_another_depth_cannot_be_made(bit_depth: Any) -> None:
    with pytest.raises(ValueError, match="bit_depth"):
        DecodePolicy(bit_depth=bit_depth)


@pytest.mark.parametrize(("bit_depth", "remedy"), [(8, "to uint8, .* to 255"), (12, "to uint16, .* to 4095")])
def test_the_remedy_for_another_type_keeps_all_bits(bit_depth, remedy):
    with pytest.raises(SourceError, match=remedy):
        frame_to_rgb(TWELVE_BITS.astype(np.int16), DecodePolicy(bit_depth=bit_depth))


# --- other files, and damaged ones ------------------------------------------------------------------------------------

INKS = np.random.default_rng(5).integers(0, 256, (3, 4, 4), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
INKS[:16, :48] = np.repeat(
    np.array([(0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)], np.uint8), 16, axis=0
)  # white paper, red and black first
WHOLE = {
    "jpg": encoded(SCENE, ".jpg"),
    "progressive.jpg": encoded(SCENE, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts.jpg": encoded(SCENE, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "cmyk.jpg": by_pillow(Image.fromarray(INKS, "CMYK"), "JPEG"),
    "png": encoded(SCENE, ".png"),
    "16-bit.png": encoded(TWELVE_BITS, ".png"),
    "bmp": encoded(SCENE, ".bmp"),
    "tif": encoded(SCENE, ".tif"),
    "plain.tif": encoded(SCENE, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_NONE),
    "webp": encoded(SCENE, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless.webp": encoded(SCENE, ".webp"),
    "ppm": encoded(SCENE, ".ppm"),
}


@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 0.75, 0.99, 1.0])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, share: float, read: Callable[..., np.ndarray]) -> None:
    whole = WHOLE[kind]
    read(tmp_path, whole, bit_depth=12)
    with pytest.raises(UnreadableImageError, match="truncated"):
        read(tmp_path, whole[: min(int(share * len(whole)), len(whole) - 1)], bit_depth=12)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^the file is empty; copy, save or take it again$"),
        (b"\0", "not an image"),
        (b"\0" * 10_000, "not an image"),
        (b"not an image, but a sentence about one\n", "not an image"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj <<>> endobj\n", "not an image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image"),
        (b"PK\x03\x04" + b"\0" * 60, "not an image"),
        (np.random.default_rng(0).bytes(5000), "not an image"),
        (encoded(SCENE, ".png")[:8], "not an image"),
        (b"\xff\xd8\xff\xd9", "not an image"),
    ],
    ids=["empty", "one zero", "zeros", "text", "pdf", "svg", "zip", "noise", "png signature", "empty jpeg"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, reason: str, read: Callable[..., np.ndarray]) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        read(tmp_path, content)


@given(st.integers(33, len(WHOLE["png"]) - 13), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_png_with_any_altered_byte_in_its_pixels_is_refused(
    tmp_path_factory: pytest.TempPathFactory, read: Callable[..., np.ndarray], position: int, change: int
) -> None:
    damaged = bytearray(WHOLE["png"])
    damaged[position] ^= change
    with pytest.raises(UnreadableImageError):
        read(tmp_path_factory.getbasetemp(), bytes(damaged))


def test_a_damaged_file_gives_an_image_or_one_reason_and_never_a_crash(
    tmp_path: Path, in_child: Callable[..., str]
) -> None:
    """A file without a checksum may decode to another image; see DecodePolicy."""
    for kind, whole in WHOLE.items():
        (tmp_path / kind).write_bytes(whole)
    counts = json.loads(
        in_child(
            """
import json, sys
from collections import Counter
from pathlib import Path
from msc_edge.images import DecodePolicy, read_image
from msc_edge.errors import UnreadableImageError
import numpy as np

random, outcomes = np.random.default_rng(0), Counter()
for original in sorted(Path(sys.argv[1]).iterdir()):
    whole = original.read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        at, length = int(random.integers(len(whole))), int(random.integers(1, 12))
        damaged[at : at + length] = random.bytes(len(damaged[at : at + length]))
        path = original.with_suffix(".damaged")
        path.write_bytes(damaged)
        try:
            image = read_image(path, DecodePolicy(bit_depth=16))
        except UnreadableImageError as error:
            assert str(error)
            outcomes["refused"] += 1
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
            outcomes["read"] += 1
        path.unlink()
print(json.dumps(outcomes))
""",
            tmp_path,
        )
    )
    assert counts["refused"] + counts["read"] == 60 * len(WHOLE)
    assert counts["refused"] >= 2 * 60, "at least the damaged PNGs"


# --- images that are too large ----------------------------------------------------------------------------------------


def black_png(width: int, height: int) -> bytes:
    """One bit a pixel. Only the first rows are in the file, but the header declares all of them."""
    pixels = zlib.compress(bytes(1 + (width + 7) // 8) * 50)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def huge_files() -> dict[str, bytes]:
    frame = WHOLE["jpg"].index(b"\xff\xc0") + 5
    tiff = by_pillow(Image.new("1", (20_000, 50)), "TIFF", compression="tiff_deflate")
    height, more = (struct.pack("<HHIHH", 257, 3, 1, rows, 0) for rows in (50, 20_000))
    assert tiff.count(height) == 1
    return {
        "400-megapixels.png": black_png(20_000, 20_000),
        "large.jpg": WHOLE["jpg"][:frame] + struct.pack(">HH", 60_000, 60_000) + WHOLE["jpg"][frame + 4 :],
        "large.bmp": WHOLE["bmp"][:18] + struct.pack("<ii", 30_000, 30_000) + WHOLE["bmp"][26:],
        "large.ppm": b"P6\n30000 30000\n255\n" + bytes(1000),
        "four-gigabyte-chunk.png": WHOLE["png"][:33] + b"\xff\xff\xff\xff" + WHOLE["png"][37:],
        "large.tif": tiff.replace(height, more),
    }


@pytest.fixture(scope="module")
def results_for_huge_files(
    tmp_path_factory: pytest.TempPathFactory, in_child: Callable[..., str]
) -> dict[str, tuple[str, int]]:
    pytest.importorskip("resource", reason="peak memory is measured with POSIX's getrusage")
    folder = tmp_path_factory.mktemp("huge")
    for name, content in huge_files().items():
        assert len(content) < 1_000_000
        (folder / name).write_bytes(content)
    code = """
import json, resource, sys
from pathlib import Path
from msc_edge.images import read_image
from msc_edge.errors import UnreadableImageError

def peak():
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes // 1024 if sys.platform != "darwin" else kibibytes // 1024**2

results, before = {}, peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        result = str(read_image(path).shape)
    except UnreadableImageError as error:
        result = str(error)
    results[path.name] = result, peak() - before
print(json.dumps(results))
"""
    return json.loads(in_child(code, folder))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("400-megapixels.png", "larger than 100 megapixels; "),
        ("large.jpg", "larger than 100 megapixels; "),
        ("large.bmp", "larger than 100 megapixels; "),
        ("large.ppm", "larger than 100 megapixels; "),
        ("large.tif", "larger than 100 megapixels; "),
        ("four-gigabyte-chunk.png", "not an image, or a truncated or damaged one: a chunk of this PNG"),
    ],
)
def test_a_large_image_is_refused_before_memory_is_allocated(
    results_for_huge_files: dict[str, tuple[str, int]], name: str, reason: str
) -> None:
    result, mebibytes = results_for_huge_files[name]
    assert result.startswith(reason)
    assert mebibytes < 100


def test_the_limit_can_be_set_as_opencv_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_child: Callable[..., str]
) -> None:
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1KB")
    (tmp_path / "part.png").write_bytes(WHOLE["png"])
    code = """
import sys
from pathlib import Path
from msc_edge.errors import UnreadableImageError
from msc_edge.images import read_image
try:
    read_image(Path(sys.argv[1]))
except UnreadableImageError as error:
    print(error)
"""
    assert in_child(code, tmp_path / "part.png").startswith("larger than 0.001024 megapixels")


def test_the_limit_holds_where_opencv_was_imported_with_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[..., np.ndarray]
) -> None:
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(SCENE.shape[0] * SCENE.shape[1]))
    np.testing.assert_array_equal(read(tmp_path, WHOLE["png"]), SCENE)
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1000")
    with pytest.raises(UnreadableImageError, match=r"^larger than 0\.001 megapixels; shrink or tile it first"):
        read(tmp_path, WHOLE["png"])


def sparse_file(path: Path, beginning: bytes, size: int) -> Path:
    """A file of `size` bytes that needs no space on the disk."""
    with path.open("wb") as file:
        file.write(beginning)
        file.truncate(size)
    return path


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    for beginning in (b"\xff\xd8\xff\xe0", b"BM", b"\x89PNG"):
        path = sparse_file(tmp_path / "part.jpg", beginning, 1 << 40)
        with pytest.raises(UnreadableImageError, match="the file has 1048576 MiB; at most 826 MiB are read"):
            read_image(path)


def test_of_a_file_that_is_no_image_only_the_beginning_is_read(tmp_path: Path, in_child: Callable[..., str]) -> None:
    code = """
import resource, sys
from pathlib import Path
from msc_edge.errors import UnreadableImageError
from msc_edge.images import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(Path(sys.argv[1]))
except UnreadableImageError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""
    growth, _, reason = in_child(code, sparse_file(tmp_path / "part.jpg", b"", 700 << 20)).partition(" ")
    assert int(growth) < 50 << 10  # kB
    assert reason.startswith("not an image")


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((8, 9, 4), r"remove alpha with frame\[\.\.\., :3\]"),
        ((3, 8, 9), r"its channels come first: numpy\.moveaxis\(frame, 0, -1\) puts them last"),
        ((8, 9, 2), "it has 2 channels: choose one or three of them"),
        ((5, 8, 9, 3), "pass several frames as a list"),
        ((7,), "check what cut or read it"),
    ],
)
def test_an_array_of_another_shape_gets_the_remedy_for_that_shape(shape: tuple[int, ...], remedy: str) -> None:
    with pytest.raises(SourceError, match=remedy):
        frame_to_rgb(np.zeros(shape, np.uint8))
