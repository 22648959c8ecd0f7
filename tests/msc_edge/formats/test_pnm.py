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
    np.testing.assert_array_equal(decoded(b"P1\n3 2\n1 0 1\n0 0 1\n")[..., 1], expected)


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
