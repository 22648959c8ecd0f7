"""PNG files with chunks that change no pixel, with damaged chunks and pixels, and with animations."""

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


def file_of(rows: bytes, *, depth: int = 8, colour: int = 2, palette: bytes | None = None, after: bytes = b"") -> bytes:
    """A file of 23 x 19 pixels from its rows; `after`: the compressed pixels instead."""
    header = struct.pack(">IIBBBBB", 23, 19, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"PLTE", palette) if palette is not None else b""]
    return b"".join([png()[:8], *chunks, chunk(b"IDAT", after or zlib.compress(rows)), chunk(b"IEND", b"")])


ROWS = b"".join(b"\0" + row.tobytes() for row in SCENE)
NUMBERS = np.random.default_rng(3).integers(0, 5, (19, 23), dtype=np.uint8)
NUMBERED = b"".join(b"\0" + row.tobytes() for row in NUMBERS)
FIVE_COLOURS = SCENE[0, :5].tobytes()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file_of(ROWS[: len(ROWS) // 2]), "the last rows of this PNG are missing"),
        (file_of(b"", after=zlib.compress(ROWS)[:-4]), "the last rows of this PNG are missing, or their checksum"),
        (file_of(b"", after=zlib.compress(ROWS)[:-1] + b"x"), "the pixels of this PNG are damaged"),
        (file_of(b"", after=b"no compressed data"), "the pixels of this PNG are damaged"),
        (file_of(ROWS + ROWS), "more pixels than its header states"),
        (file_of(b"\5" + ROWS[1:]), "a filter that does not exist"),
        (file_of(NUMBERED, colour=3, palette=FIVE_COLOURS[:-3]), "a colour that its palette does not have"),
        (file_of(NUMBERED, colour=3, palette=FIVE_COLOURS[:-1]), "not a list of colours"),
        (file_of(NUMBERED, colour=3), "the palette of this PNG is missing"),
    ],
)
def test_pixels_that_the_file_does_not_have_are_refused_and_nothing_is_printed(data, reason, capfd):
    with pytest.raises(UnreadableImageError, match=reason):
        decoded(data)
    assert capfd.readouterr() == ("", "")


def test_what_follows_the_compressed_pixels_is_ignored_in_silence(capfd):
    np.testing.assert_array_equal(decoded(file_of(b"", after=zlib.compress(ROWS) + b"padding")), SCENE)
    assert capfd.readouterr() == ("", "")


def test_colours_of_a_short_palette_are_read():
    found = decoded(file_of(NUMBERED, colour=3, palette=FIVE_COLOURS))
    np.testing.assert_array_equal(found, SCENE[0, :5][NUMBERS])


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 9, 23])
@pytest.mark.parametrize("height", [1, 2, 4, 5, 9])
def test_interlaced_files_are_read(width, height):
    """Small images lack some of the seven passes; each pixel by the passes of the specification."""
    image = SCENE[:height, :width]
    places = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [image[row::down, column::right] for column, row, right, down in places]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    whole = png()[:8] + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decoded(whole), image)
    with pytest.raises(UnreadableImageError, match="the last rows of this PNG are missing"):
        decoded(whole.replace(chunk(b"IDAT", zlib.compress(rows)), chunk(b"IDAT", zlib.compress(rows[:-1]))))


@pytest.mark.parametrize("size", [(0, 19), (23, 0), (1_000_001, 1), (2**32 - 1, 1)])
def test_an_impossible_size_is_refused_and_nothing_is_printed(size, capfd):
    whole = png()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    with pytest.raises(UnreadableImageError, match="no valid size or method"):
        decoded(whole[:8] + header + whole[33:])
    assert capfd.readouterr() == ("", "")


def test_an_image_with_too_many_pixels_is_refused_before_it_is_inflated():
    whole = png()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    with pytest.raises(UnreadableImageError, match="larger than 100 megapixels"):
        decoded(whole[:8] + header + whole[33:])


def test_pixels_of_more_than_two_gigabytes_are_passed_on_compressed(monkeypatch):
    """OpenCV counts the bytes of a file in an int."""
    monkeypatch.setattr("msc_edge.formats.png._MOST_STORED", len(ROWS) - 1)
    np.testing.assert_array_equal(decoded(png()), SCENE)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_the_orientation_is_applied_with_and_without_the_prefix_of_jpeg(prefix):
    exif = PIL.Image.Exif()
    exif[274] = 6
    whole = png()
    block = chunk(b"eXIf", prefix + exif.tobytes().removeprefix(b"Exif\0\0"))
    np.testing.assert_array_equal(decoded(whole[:33] + block + whole[33:]), np.rot90(SCENE, -1))
