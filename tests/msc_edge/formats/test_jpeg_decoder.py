"""JPEG files against OpenCV's pixels, and files that lost a part or have harmless errors."""

import io
import re
from contextlib import suppress

import cv2
import numpy as np
import PIL.Image
import pytest

from msc_edge.errors import UnreadableImageError
from msc_edge.images import DecodePolicy, decode_image


def scene(height: int = 203, width: int = 301) -> np.ndarray:
    """Smooth and noisy parts."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([128 + 60 * np.sin(rows / 9), 128 + 60 * np.cos(columns / 7), rows + columns], axis=2)
    noise = np.random.default_rng(5).normal(0, 25, waves.shape) * (columns > width // 2)[..., None]
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray | PIL.Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, "JPEG", **({"quality": 90} | options))
    return file.getvalue()


def decoded(data: bytes, **policy) -> np.ndarray:
    return decode_image(np.frombuffer(data, np.uint8), DecodePolicy(**policy))


def by_opencv(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert image is not None
    return image[..., ::-1]


WHOLE = {
    "colour": jpeg(scene()),
    "grey": jpeg(scene()[..., 0]),
    "progressive": jpeg(scene(), progressive=True),
    "restarts": jpeg(scene(), restart_marker_blocks=3),
    "cmyk": jpeg(PIL.Image.fromarray(scene()).convert("CMYK")),
}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("mode", "subsampling"),
    [("L", "4:4:4"), ("RGB", "4:4:4"), ("RGB", "4:2:2"), ("RGB", "4:2:0"), ("CMYK", "4:4:4")],
)
def test_the_pixels_are_those_of_opencv(mode, subsampling, progressive):
    data = jpeg(PIL.Image.fromarray(scene()).convert(mode), subsampling=subsampling, progressive=progressive)
    np.testing.assert_array_equal(decoded(data), by_opencv(data))
    for factor, flags in {2: cv2.IMREAD_REDUCED_COLOR_2, 8: cv2.IMREAD_REDUCED_COLOR_8}.items():
        np.testing.assert_array_equal(decoded(data, jpeg_keep=203 // factor), by_opencv(data, flags))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_that_of_opencv(orientation, order):
    exif = PIL.Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "Maker", orientation
    data = jpeg(scene(), exif=exif)
    np.testing.assert_array_equal(decoded(data), by_opencv(data))


def test_a_damaged_block_of_exif_leaves_the_image_as_it_is():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = jpeg(scene(), exif=exif)
    at = data.index(b"Exif\0\0") + 10
    for value in (b"\xff\xff\xff\xff", b"\0\0\0\0"):  # where the first directory is
        np.testing.assert_array_equal(decoded(data[:at] + value + data[at + 4 :]), decoded(jpeg(scene())))


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize(("start", "length"), [(0.4, 0.2), (0.6, 0.05), (0.9, 0.02), (0.5, 0.499)])
def test_a_file_that_lost_its_middle_is_refused(kind, start, length, capfd):
    whole = WHOLE[kind]
    header = len(whole) - len(whole.partition(b"\xff\xda")[2])
    first = header + int(start * (len(whole) - header))
    last = min(first + int(length * (len(whole) - header)), len(whole) - 2)
    with pytest.raises(UnreadableImageError, match="truncated or damaged"):
        decoded(whole[:first] + whole[last:])
    assert capfd.readouterr() == ("", "")


def test_data_that_were_overwritten_are_refused():
    whole = WHOLE["colour"]
    middle = len(whole) // 2
    with pytest.raises(UnreadableImageError, match="damaged"):
        decoded(whole[:middle] + bytes(500) + whole[middle + 500 :])


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    return data[:2] + bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2) + payload + data[2:]


HARMLESS = {
    "unknown revision of JFIF": lambda data: data.replace(b"JFIF\0\x01", b"JFIF\0\x07"),
    "damaged colour profile": lambda data: with_segment(data, 0xE2, b"ICC_PROFILE\0\x09\x02" + bytes(40)),
    "bytes between segments": lambda data: data[:20] + b"\0abc" + data[20:],
    "range of frequencies": lambda data: re.sub(rb"(\xff\xda[^\xff]{10})\x3f\0", rb"\1\0\0", data),
    "bytes behind the end": lambda data: data + bytes(100),
    "bytes left over": lambda data: data[:-2] + b"\x55\x55" + data[-2:],
}


@pytest.mark.parametrize("fault", HARMLESS)
def test_errors_that_cost_no_pixel_are_accepted(fault, capfd):
    whole = WHOLE["colour"]
    faulty = HARMLESS[fault](whole)
    assert faulty != whole
    np.testing.assert_array_equal(decoded(faulty), decoded(whole))
    assert capfd.readouterr() == ("", "")


def test_bytes_left_over_in_the_intervals_of_a_webcam_are_accepted_and_missing_intervals_are_not():
    whole = WHOLE["restarts"]
    start = whole.index(b"\xff\xda")
    faulty = whole[:start] + re.sub(rb"\xff[\xd0-\xd7]", lambda mark: b"\x55\x55\x55\x55" + mark[0], whole[start:])
    np.testing.assert_array_equal(decoded(faulty), decoded(whole))
    marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", faulty)]
    for first, last in ((4, 5), (3, 11), (len(marks) - 2, len(marks) - 1)):
        with pytest.raises(UnreadableImageError, match="damaged"):
            decoded(faulty[: marks[first]] + faulty[marks[last] :])


def test_many_bytes_left_over_are_data_that_were_decoded_wrongly():
    whole = WHOLE["colour"]
    with pytest.raises(UnreadableImageError, match="extraneous bytes"):
        decoded(whole[:-2] + b"\x55" * 40 + whole[-2:])


def test_a_file_of_thousands_of_scans_is_refused_before_it_is_decoded():
    whole = jpeg(np.zeros((4000, 4000), np.uint8), progressive=True)
    start, end = whole.rindex(b"\xff\xda"), len(whole) - 2
    with pytest.raises(UnreadableImageError, match=r"a JPEG of 30\d\d scans"):
        decoded(whole[:start] + 3000 * whole[start:end] + whole[end:])
    assert decoded(whole).shape == (4000, 4000, 3)


def test_no_changed_byte_raises_another_error():
    rng = np.random.default_rng(0)
    for data in WHOLE.values():
        for _ in range(150):
            other = bytearray(data)
            other[rng.integers(len(other))] = rng.integers(256)
            with suppress(UnreadableImageError):
                assert decoded(bytes(other)).dtype == np.uint8


@pytest.mark.parametrize("damage", ["zero", "cut", "empty"])
@pytest.mark.parametrize("left_over", [1, 4, 16])
def test_a_harmless_fault_does_not_hide_damage_behind_it(damage, left_over):
    whole = WHOLE["restarts"]
    start = whole.index(b"\xff\xda")
    marks = [start + found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", whole[start:])]
    first, last = marks[7] + 2, marks[8]
    interval = {"zero": bytes(last - first), "cut": whole[first : (first + last) // 2], "empty": b""}[damage]
    broken = whole[: marks[0]] + b"\x55" * left_over + whole[marks[0] : first] + interval + whole[last:]
    with pytest.raises(UnreadableImageError, match="damaged"):
        decoded(broken)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_progressive_file_that_lost_its_last_scans_is_refused(mode):
    whole = jpeg(PIL.Image.fromarray(scene()).convert(mode), progressive=True)
    scans = [found.start() for found in re.finditer(rb"\xff\xda", whole)]
    assert len(scans) >= 6
    assert decoded(whole).shape == scene().shape
    for end in scans[1:]:
        with pytest.raises(UnreadableImageError, match="scans of this progressive JPEG are missing"):
            decoded(whole[:end] + b"\xff\xd9")


def test_a_long_run_of_zeros_is_no_header_and_is_not_walked_byte_by_byte(in_child):
    """A sparse file needs no space on the disk. A loop in Python over these bytes does not end in time."""
    code = """
from msc_edge.formats.jpeg import jpeg_header
print(jpeg_header(memoryview(b"\\xff\\xd8\\xff\\xe0" + bytes(400_000_000))))
"""
    assert in_child(code).strip() == "None"


@pytest.mark.parametrize("kind", ["progressive", "restarts"])
@pytest.mark.parametrize("marker", [0xC0, 0xC2, 0xDA, 0xDB, 0xDD])
@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_a_segment_that_is_shorter_than_its_kind_is_no_other_error(kind, marker, length):
    whole = WHOLE[kind]
    for at in (2, whole.index(b"\xff\xda"), len(whole) - 2):
        short = bytes((0xFF, marker)) + (2 + length).to_bytes(2) + bytes(length)
        with suppress(UnreadableImageError):
            decoded(whole[:at] + short + whole[at:])
