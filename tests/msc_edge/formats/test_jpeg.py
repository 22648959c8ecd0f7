from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from msc_edge.formats.jpeg import JpegHeader, jpeg_header
from msc_edge.images import DecodePolicy, decode_image, read_image

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(rows / 40) + 60 * np.cos(columns / 55)
    return np.stack([waves, waves[::-1], 255 - waves], axis=2).round().astype(np.uint8)


def jpeg(image: np.ndarray, **options) -> bytes:
    import io

    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (480, 640), (3000, 4000), (1, 9000)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xd8\xff\xc0 in a comment"}])
def test_the_size_in_the_header_is_that_of_the_image(height, width, options):
    data = jpeg(np.zeros((height, width, 3), np.uint8), **options)
    assert jpeg_header(memoryview(data)) == JpegHeader(height, width, 3)


def test_the_size_is_not_that_of_a_thumbnail_in_the_metadata():
    exif = PIL.Image.Exif()
    exif[0x927C] = jpeg(np.zeros((50, 60, 3), np.uint8))
    data = jpeg(smooth(300, 400), exif=exif)
    assert data.count(b"\xff\xd8\xff") == 2
    assert jpeg_header(memoryview(data)) == JpegHeader(300, 400, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xc0\x00\x11",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xda" + bytes(9),
    ],
)
def test_an_incomplete_header_has_no_size(data):
    assert jpeg_header(memoryview(data)) is None


def test_no_truncated_or_changed_header_raises_an_error():
    data = jpeg(smooth(64, 64))[:700]
    rng = np.random.default_rng(0)
    for end in range(len(data)):
        jpeg_header(memoryview(data[:end]))
    for _ in range(3000):
        other = bytearray(data)
        other[rng.integers(len(other))] = rng.integers(256)
        jpeg_header(memoryview(bytes(other)))


@pytest.mark.parametrize(
    ("keep", "factor"), [(1081, 1), (1080, 1), (541, 1), (540, 2), (271, 2), (270, 4), (135, 8), (1, 8)]
)
def test_the_shorter_side_keeps_the_required_pixels(keep, factor):
    data = memoryview(jpeg(np.zeros((1080, 1920, 3), np.uint8)))
    header = jpeg_header(data)
    assert header
    assert header.reduction(keep) == factor
    assert decode_image(np.frombuffer(data, np.uint8), DecodePolicy(jpeg_keep=keep)).shape == (
        1080 // factor,
        1920 // factor,
        3,
    )


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_image_is_the_mean_of_its_blocks(factor):
    image = smooth(640, 960)
    data = np.frombuffer(jpeg(image), np.uint8)
    reduced = decode_image(data, DecodePolicy(jpeg_keep=640 // factor)).astype(float)
    means = image.reshape(640 // factor, factor, 960 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(reduced - means).max() < 6  # compression loss


def test_reduced_images_are_turned_by_their_exif_orientation(tmp_path):
    image = smooth(400, 800)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (tmp_path / "turned.jpg").write_bytes(jpeg(image, exif=exif))
    whole = read_image(tmp_path / "turned.jpg")
    reduced = read_image(tmp_path / "turned.jpg", DecodePolicy(jpeg_keep=200))
    assert (whole.shape, reduced.shape) == ((800, 400, 3), (400, 200, 3))
    small = cv2.resize(whole, (200, 400), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - reduced).max() < 6


def test_grey_jpegs_are_reduced_and_other_formats_are_not(tmp_path):
    grey = smooth(640, 640)[..., 0]
    PIL.Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=95)
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    policy = DecodePolicy(jpeg_keep=320)
    reduced = read_image(tmp_path / "grey.jpg", policy)
    assert reduced.shape == (320, 320, 3)
    assert (reduced[..., 0] == reduced[..., 2]).all()
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png", policy)[..., 1], grey)


def decoded_in_colour(path: Path) -> np.ndarray:
    """Decoded as other formats are, with a conversion that a grey or an 8-bit image does not need."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_faster_flags_for_jpegs_give_the_same_pixels(mode, orientation, tmp_path):
    rng = np.random.default_rng(3)
    image = PIL.Image.fromarray(rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)).convert(mode)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "image.jpg", quality=90, exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "image.jpg"), decoded_in_colour(tmp_path / "image.jpg"))


@pytest.mark.skipif(not DATA.is_dir(), reason="the images of ../shared/data are not here")
def test_the_faster_flags_give_the_same_pixels_for_real_jpegs():
    paths = sorted((DATA / "magnetic_tile").rglob("*.jpg"))[::25]
    assert len(paths) > 30
    for path in paths:
        header = jpeg_header(memoryview(path.read_bytes()))
        assert header is not None
        assert header.channels in (1, 3)
        np.testing.assert_array_equal(read_image(path), decoded_in_colour(path))


@pytest.mark.skipif(not DATA.is_dir(), reason="the images of ../shared/data are not here")
def test_small_real_images_are_not_reduced():
    for path in sorted((DATA / "magnetic_tile/test").rglob("*.jpg"))[::50]:
        np.testing.assert_array_equal(read_image(path, DecodePolicy(jpeg_keep=448)), read_image(path))
