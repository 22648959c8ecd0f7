"""PNM files: the declared largest value counts, and a header that decoders read differently is refused."""

import numpy as np
import pytest

from msc_edge.errors import UnreadableImageError
from msc_edge.images import DecodePolicy, decode_image


def decoded(data: bytes, bit_depth: int = 8) -> np.ndarray:
    return decode_image(np.frombuffer(data, np.uint8), DecodePolicy.model_validate({"bit_depth": bit_depth}))


@pytest.mark.parametrize("comment", [b"", b"# made by hand\n", b" \t# 3 4\n#5\n"])
def test_comments_in_the_header_are_skipped(comment):
    grey = bytes(range(6))
    found = decoded(b"P5\n" + comment + b"3 2\n" + comment + b"255\n" + grey)
    np.testing.assert_array_equal(found[..., 0], np.arange(6).reshape(2, 3))
    text = b"P2\n" + comment + b"3 2\n255\n0 1 2\n3 4 5\n"
    np.testing.assert_array_equal(decoded(text), found)


def test_bitmaps_are_black_and_white():
    expected = [[0, 255, 0], [255, 255, 0]]  # 1 is black
    np.testing.assert_array_equal(decoded(b"P4\n3 2\n" + bytes([0b10100000, 0b00100000]))[..., 1], expected)
    for text in (b"1 0 1\n0 0 1\n", b"101001", b"1 0 1 # 1 1\n001\n"):
        np.testing.assert_array_equal(decoded(b"P1\n3 2\n" + text)[..., 1], expected)


@pytest.mark.parametrize(("largest", "bits"), [(1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_the_largest_value_gives_the_number_of_bits(largest, bits):
    data = b"P5\n2 1\n%d\n" % largest + largest.to_bytes(2) + (largest // 2).to_bytes(2)
    np.testing.assert_array_equal(decoded(data, bits)[0, :, 0], [255, 127])
    with pytest.raises(UnreadableImageError, match=f"it has {bits} bits a channel"):
        decoded(data)
    other = 10 if bits == 14 else 14
    with pytest.raises(UnreadableImageError):
        decoded(data, other)


@pytest.mark.parametrize("largest", [1, 15, 100, 254, 256, 1000, 65534])
@pytest.mark.parametrize("kind", [b"P2", b"P3", b"P5", b"P6"])
def test_other_largest_values_are_refused(largest, kind):
    data = kind + b"\n2 1\n%d\n" % largest + (b"1 " * 6 if kind in (b"P2", b"P3") else bytes(12))
    with pytest.raises(UnreadableImageError, match=f"PNM whose largest value is {largest}"):
        decoded(data)


@pytest.mark.parametrize(
    "data",
    [b"P5\n2 1\n255#\n" + bytes(9), b"P6 2 1 255xxx", b"P5\n-2 1\n255\n" + bytes(9), b"P52 1 255 " + bytes(2)],
)
def test_a_header_that_can_be_read_in_two_ways_is_refused(data):
    with pytest.raises(UnreadableImageError, match="header of this PNM is not valid"):
        decoded(data)


COLOURS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"P6\r\n3 2\r\n255\r\n" + COLOURS.tobytes(),  # line ends of Windows: the pixels begin one byte later
        b"P6\n3 2\n255 # a comment\n" + COLOURS.tobytes(),
        b"P6\r\n3 2\r\n255\r\n" + COLOURS.tobytes()[:-1] + b"\n",
        b"P6\n3 2\n255\n" + COLOURS.tobytes() + b"\0",
        b"P4\n3 2 1\n" + bytes(2),  # a bitmap has no largest value
        b"P1\n3 2\n1 0 1 0 0 1 1\n",
        b"P2\n2 1\n255\n1 2 3\n",
    ],
)
def test_a_file_with_more_pixels_than_it_states_is_refused(data):
    with pytest.raises(UnreadableImageError, match="more pixels than it states"):
        decoded(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P6\n3 2\n255\n" + COLOURS.tobytes()[:-1], "fewer pixels than it states"),
        (b"P5\n3 2\n65535\n" + bytes(11), "fewer pixels than it states"),
        (b"P5\n3 2\n65535\n" + bytes(13), "more pixels than it states"),
        (b"P4\n3 2\n\0", "fewer pixels than it states"),
        (b"P1\n3 2\n1 0 1 0 0\n", "fewer pixels than it states"),
        (b"P1\n2 1\n1 2\n", "neither 0 nor 1"),
        (b"P2\n2 1\n255\n1 256\n", "a value of this PNM is above 255"),
        (b"P2\n2 1\n1023\n1 1024\n", "a value of this PNM is above 1023"),
        (b"P2\n2 1\n255\n1.5 2\n", "not a whole number"),
        (b"P2\n2 1\n255\n-1 2\n", "not a whole number"),
        (b"P2\n2 1\n255\n1 25", "is cut off"),
        (b"P5\n0 1\n255\n", "header of this PNM is not valid"),
    ],
)
def test_what_the_header_does_not_allow_is_refused(data, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decoded(data)


def test_text_is_read():
    text = b" ".join(b"%d" % value for value in COLOURS.ravel())
    np.testing.assert_array_equal(decoded(b"P3 3 2 255 " + text + b"\n"), COLOURS)
    np.testing.assert_array_equal(decoded(b"P2 2 1 65535 258 # a comment 7\n 65535\n", 16)[..., 0], [[1, 255]])


def test_an_image_with_too_many_pixels_is_refused_before_memory_is_allocated():
    with pytest.raises(UnreadableImageError, match="larger than 100 megapixels"):
        decoded(b"P4\n20000 20000\n")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n", b"P6\n1 1\n255\n123", b"\nP5 1 1 255 1"])
def test_line_ends_that_an_editor_adds_and_further_images_are_ignored(end):
    np.testing.assert_array_equal(decoded(b"P6\n3 2\n255\n" + COLOURS.tobytes() + end), COLOURS)
