"""What an image decodes to."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from msc_edge.errors import UnreadableImageError
from msc_edge.images import DecodePolicy, frame_to_rgb, read_image

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
# Flat 16x16 patches, so that a lossy file keeps their colours within a few grey levels.
PATCHES = np.random.default_rng(3).integers(0, 256, (2, 3, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
# Smooth, and with something in every block.
SCENE = cv2.resize(np.random.default_rng(4).integers(0, 256, (6, 8, 3), dtype=np.uint8), (128, 96))


def encoded(rgb: np.ndarray, suffix: str, *parameters: int) -> bytes:
    bgr = rgb if rgb.ndim == 2 else rgb[..., [2, 1, 0, 3][: rgb.shape[2]]]
    return cv2.imencode(suffix, bgr, parameters)[1].tobytes()


def by_pillow(image: Any, kind: str, *, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    pillow = image if isinstance(image, Image.Image) else Image.fromarray(image)
    (pillow.convert(mode) if mode else pillow).save(file, kind, **options)
    return file.getvalue()


def far(one: np.ndarray, other: np.ndarray) -> int:
    """Largest difference in grey levels."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def samples() -> list[Path]:
    files = sorted(file for file in DATA.rglob("*") if file.suffix in {".bmp", ".jpg", ".png"})
    return files[:: max(1, len(files) // 60)]


@pytest.mark.skipif(not DATA.is_dir(), reason="the images of ../shared/data are not here")
def test_ordinary_files_decode_as_opencv_reads_them() -> None:
    files = samples()
    assert {file.suffix for file in files} == {".bmp", ".jpg", ".png"}
    for file in files:
        expected = cv2.imread(str(file))
        assert expected is not None
        np.testing.assert_array_equal(read_image(file), expected[..., ::-1], err_msg=file.name)


@pytest.mark.skipif(not DATA.is_dir(), reason="the images of ../shared/data are not here")
def test_another_decoder_gives_the_same_colours() -> None:
    for file in samples():
        with Image.open(file) as image:
            assert far(read_image(file), np.asarray(image.convert("RGB"))) <= (3 if file.suffix == ".jpg" else 0), file


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pnm"])
def test_lossless_files_give_back_every_pixel(tmp_path: Path, suffix: str, read: Callable[..., np.ndarray]) -> None:
    np.testing.assert_array_equal(read(tmp_path, encoded(SCENE, suffix, *LOSSLESS.get(suffix, ()))), SCENE)


LOSSLESS = {".webp": (cv2.IMWRITE_WEBP_QUALITY, 101)}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".pgm", ".webp"])
@pytest.mark.parametrize("name", ["part.jpg", "part.png", "part.txt", "part"])
def test_the_content_decides_the_format_and_not_the_suffix(
    tmp_path: Path, suffix: str, name: str, read: Callable[..., np.ndarray]
) -> None:
    grey = np.repeat(PATCHES[..., :1], 3, axis=2)
    content = encoded(grey[..., 0] if suffix == ".pgm" else grey, suffix)
    assert far(read(tmp_path, content, name=name), grey) <= 8


@pytest.mark.parametrize(
    "content",
    [encoded(PATCHES[..., 0], suffix) for suffix in (".png", ".bmp", ".tif", ".pgm")]
    + [encoded(PATCHES[..., 0], ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100)],
    ids=["png", "bmp", "tif", "pgm", "jpg"],
)
def test_grey_is_repeated_into_three_channels(tmp_path: Path, content: bytes, read: Callable[..., np.ndarray]) -> None:
    image = read(tmp_path, content)
    np.testing.assert_array_equal(image[..., 0], image[..., 1])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert far(image[..., 0], PATCHES[..., 0]) <= 1


WITH_ALPHA = np.dstack([PATCHES, np.indices(PATCHES.shape[:2]).sum(0).astype(np.uint8) * 3])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (by_pillow(WITH_ALPHA, "PNG"), PATCHES),
        (by_pillow(WITH_ALPHA, "BMP"), PATCHES),
        (by_pillow(WITH_ALPHA, "WEBP", lossless=True, exact=True), PATCHES),
        (by_pillow(Image.fromarray(WITH_ALPHA[..., [0, 3]], "LA"), "PNG"), PATCHES[..., [0, 0, 0]]),
        (by_pillow(Image.fromarray(PATCHES).quantize(6), "PNG", transparency=0), PATCHES),
        (by_pillow(WITH_ALPHA, "TIFF"), PATCHES),
        (encoded(WITH_ALPHA, ".tif"), PATCHES),
    ],
    ids=["png", "bmp", "webp", "grey png", "palette png", "tiff unassociated", "tiff undeclared"],
)
def test_alpha_is_dropped(
    tmp_path: Path, content: bytes, expected: np.ndarray, read: Callable[..., np.ndarray]
) -> None:
    assert far(read(tmp_path, content), expected) <= 1


def cmyk() -> tuple[np.ndarray, np.ndarray]:
    """Patches as inks in [0, 255], and the colours that they leave of white light: (1 - ink)(1 - black)."""
    inks = np.random.default_rng(5).integers(0, 256, (3, 4, 4), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    inks[:16, :16] = 0  # white paper
    inks[:16, 16:32] = (0, 255, 255, 0)  # red
    inks[:16, 32:48] = (0, 0, 0, 255)  # black
    light = 1 - inks.astype(float) / 255
    return inks, np.round(255 * light[..., :3] * light[..., 3:])


def ycck_jpeg(inks: np.ndarray) -> bytes:
    """A CMYK JPEG as Photoshop writes it: the inks as YCbCr, with the marker for that."""
    luma = cv2.cvtColor(np.ascontiguousarray(inks[..., :3]), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    stored = np.dstack([255 - luma, inks[..., 3]])  # Pillow inverts what it stores
    content = by_pillow(Image.fromarray(stored, "CMYK"), "JPEG", quality=99, subsampling=0)
    transform = content.index(b"Adobe") + 11
    return content[:transform] + b"\x02" + content[transform + 1 :]


@pytest.mark.parametrize(
    ("content", "tolerance"),
    [
        (by_pillow(Image.fromarray(cmyk()[0], "CMYK"), "JPEG", quality=99, subsampling=0), 4),
        (ycck_jpeg(cmyk()[0]), 4),
        (by_pillow(Image.fromarray(cmyk()[0], "CMYK"), "TIFF"), 1),
        (by_pillow(Image.fromarray(cmyk()[0], "CMYK"), "TIFF", compression="tiff_lzw"), 1),
    ],
    ids=["jpeg", "ycck jpeg", "tiff", "tiff lzw"],
)
def test_cmyk_becomes_the_colours_that_the_inks_leave(
    tmp_path: Path, content: bytes, tolerance: int, read: Callable[..., np.ndarray]
) -> None:
    assert far(read(tmp_path, content), cmyk()[1]) <= tolerance


# EXIF 2.3, tag 0x0112: how to turn the stored image.
SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: np.rot90(stored, 2),
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def exif(orientation: int, order: str = "<") -> bytes:
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    entry = struct.pack(order + "HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    return header + entry + struct.pack(order + "I", 0)


def jpeg_with_exif(orientation: int, order: str) -> bytes:
    plain = encoded(PATCHES, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100, *FULL_CHROMA)
    segment = b"Exif\0\0" + exif(orientation, order)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + plain[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


FULL_CHROMA = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("orientation", [*SHOWN, 0, 9])
def test_a_jpeg_is_turned_by_its_exif_orientation(
    tmp_path: Path, orientation: int, order: str, read: Callable[..., np.ndarray]
) -> None:
    image = read(tmp_path, jpeg_with_exif(orientation, order))
    assert far(image, SHOWN.get(orientation, SHOWN[1])(PATCHES)) <= 3


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_other_formats_are_turned_by_their_exif_orientation(
    tmp_path: Path, kind: str, orientation: int, read: Callable[..., np.ndarray]
) -> None:
    if kind == "png":
        plain = encoded(PATCHES, ".png")
        content = plain[:33] + chunk(b"eXIf", exif(orientation)) + plain[33:]  # after the 8 + 25 bytes of IHDR
    elif kind == "tiff":
        content = by_pillow(PATCHES, "TIFF", tiffinfo={0x0112: orientation})
    else:
        content = by_pillow(PATCHES, "WEBP", lossless=True, exif=exif(orientation))
    np.testing.assert_array_equal(read(tmp_path, content), SHOWN[orientation](PATCHES))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
def test_an_image_of_one_pixel_is_read(tmp_path: Path, suffix: str, read: Callable[..., np.ndarray]) -> None:
    image = read(tmp_path, encoded(np.array([[[90, 90, 90]]], dtype=np.uint8), suffix))
    assert far(image, np.array([[[90, 90, 90]]])) <= 2


def test_of_several_pages_the_first_is_read(tmp_path: Path, read: Callable[..., np.ndarray]) -> None:
    content = by_pillow(PATCHES, "TIFF", save_all=True, append_images=[Image.fromarray(255 - PATCHES)])
    np.testing.assert_array_equal(read(tmp_path, content), PATCHES)


# --- sixteen bits -----------------------------------------------------------------------------------------------------

TWELVE_BITS = np.random.default_rng(6).integers(0, 4096, (24, 32, 3), dtype=np.uint16)
TWELVE_BITS[0, 0] = 4095


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
@pytest.mark.parametrize(("bit_depth", "shift"), [(12, 4), (14, 6), (16, 8)])
def test_the_stated_number_of_bits_becomes_eight(
    tmp_path: Path, suffix: str, bit_depth: int, shift: int, read: Callable[..., np.ndarray]
) -> None:
    image = read(tmp_path, encoded(TWELVE_BITS, suffix), bit_depth=bit_depth)
    np.testing.assert_array_equal(image, TWELVE_BITS >> shift)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_twelve_grey_bits_become_eight_in_three_channels(
    tmp_path: Path, suffix: str, read: Callable[..., np.ndarray]
) -> None:
    grey = TWELVE_BITS[..., 0]
    image = read(tmp_path, encoded(grey, suffix), bit_depth=12)
    np.testing.assert_array_equal(image, np.repeat(grey[..., None] >> 4, 3, axis=2))


@pytest.mark.parametrize("bit_depth", [10, 12, 14, 16])
def test_the_largest_value_of_a_bit_depth_is_white_and_a_larger_one_is_refused(
    tmp_path: Path, bit_depth: int, read: Callable[..., np.ndarray]
) -> None:
    white = np.full((4, 4), 2**bit_depth - 1, dtype=np.uint16)
    assert (read(tmp_path, encoded(white, ".png"), bit_depth=bit_depth) == 255).all()
    if bit_depth < 16:
        with pytest.raises(UnreadableImageError, match=f"more than {bit_depth} bits hold"):
            read(tmp_path, encoded(white + np.uint16(1), ".png"), bit_depth=bit_depth)


def test_files_of_eight_bits_are_read_the_same_with_any_bit_depth(
    tmp_path: Path, read: Callable[..., np.ndarray]
) -> None:
    for bit_depth in (8, 10, 12, 14, 16):
        np.testing.assert_array_equal(read(tmp_path, encoded(PATCHES, ".png"), bit_depth=bit_depth), PATCHES)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_frame_may_have_any_byte_order(order):
    policy = DecodePolicy(bit_depth=12)
    assert np.array_equal(frame_to_rgb(TWELVE_BITS.astype(f"{order}u2"), policy), frame_to_rgb(TWELVE_BITS, policy))
