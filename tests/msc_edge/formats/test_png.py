"""PNG files with chunks that change no pixel, with damaged chunks, and with animations."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from msc_edge.errors import UnreadableImageError
from msc_edge.images import decode_image

SCENE = np.random.default_rng(2).integers(0, 256, (19, 23, 3), dtype=np.uint8)


def png(image: np.ndarray = SCENE, **options) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def decoded(data: bytes) -> np.ndarray:
    return decode_image(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"not a profile")),
        chunk(b"iCCP", b"profile\0\0rubbish"),
        chunk(b"gAMA", struct.pack(">I", 45_455)),
        chunk(b"hIST", bytes(2)),
        chunk(b"tEXt", b"key\0value")[:-1] + b"x",  # a wrong checksum
        chunk(b"tRNS", struct.pack(">3H", *SCENE[0, 0])),
        chunk(b"quIK", b"unknown"),
    ],
    ids=["colour profile", "damaged profile", "gamma", "out of place", "text with wrong checksum", "colour key", "own"],
)
def test_chunks_that_change_no_pixel_are_ignored_in_silence(extra, capfd):
    whole = png()
    np.testing.assert_array_equal(decoded(whole[:33] + extra + whole[33:]), SCENE)  # after IHDR
    assert capfd.readouterr() == ("", "")


def test_of_an_animation_the_image_that_every_viewer_shows_is_read():
    frames = [PIL.Image.fromarray(np.full_like(SCENE, level)) for level in (40, 200)]
    data = png(save_all=True, append_images=frames, default_image=True, duration=50)
    assert b"acTL" in data
    np.testing.assert_array_equal(decoded(data), SCENE)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT", b"IEND"])
def test_a_wrong_checksum_is_refused_and_nothing_is_printed(kind, capfd):
    file = io.BytesIO()
    PIL.Image.fromarray(SCENE).quantize(16).save(file, "PNG")
    data = bytearray(file.getvalue())
    at = data.index(kind)
    data[at + 4 + int.from_bytes(data[at - 4 : at])] ^= 1
    with pytest.raises(UnreadableImageError, match="checksum of a chunk"):
        decoded(bytes(data))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("depth", "colour"), [(3, 0), (16, 3), (4, 2), (8, 1), (8, 7)])
def test_an_impossible_header_is_refused(depth, colour, capfd):
    whole = png()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 23, 19, depth, colour, 0, 0, 0))
    with pytest.raises(UnreadableImageError, match="no valid number of bits and colour type"):
        decoded(whole[:8] + header + whole[33:])
    assert capfd.readouterr() == ("", "")


def test_pixels_in_two_places_are_refused():
    whole = png()
    at = whole.index(b"IDAT") - 4
    pixels = whole[at + 8 : at + 8 + int.from_bytes(whole[at : at + 4])]
    first, second = (chunk(b"IDAT", part) for part in (pixels[:50], pixels[50:]))
    end = chunk(b"IEND", b"")
    np.testing.assert_array_equal(decoded(whole[:at] + first + second + end), SCENE)
    with pytest.raises(UnreadableImageError, match="pixels of this PNG are in several places"):
        decoded(whole[:at] + first + chunk(b"tEXt", b"key\0value") + second + end)
