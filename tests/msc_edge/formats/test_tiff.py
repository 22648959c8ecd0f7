"""TIFF files are read as tifffile wrote them, or refused with the reason."""

import builtins
import io
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from msc_edge.errors import UnreadableImageError
from msc_edge.formats.tiff import tiff_header
from msc_edge.images import DecodePolicy, decode_image

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 37, 53
LAYOUTS = ({}, {"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}, {"rowsperstrip": 5})
COMPRESSIONS = (None, "lzw", "deflate", "adobe_deflate", "packbits", "zstd", "lzma")


def grey(dtype: type, *, largest: int | None = None) -> np.ndarray:
    return RNG.integers(0, largest or np.iinfo(dtype).max, (HEIGHT, WIDTH), dtype=dtype, endpoint=True)


def colours(dtype: type, *, largest: int | None = None, samples: int = 3) -> np.ndarray:
    shape = (HEIGHT, WIDTH, samples)
    return RNG.integers(0, largest or np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def written(pixels: np.ndarray, **options: Any) -> np.ndarray:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def read(data: np.ndarray, bit_depth: Any = 16) -> np.ndarray:
    return decode_image(data, DecodePolicy(bit_depth=bit_depth))


def eight_bits(pixels: np.ndarray, *, bits: int | None = None) -> np.ndarray:
    """What should be read: three channels, the upper eight bits."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return (pixels >> ((bits or 8 * pixels.dtype.itemsize) - 8)).astype(np.uint8)[..., :3]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    "options", [{}, {"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}, {"rowsperstrip": 5}]
)
def test_every_layout_has_its_pixels(dtype: type, compression: Any, options: dict) -> None:
    image, colour = grey(dtype), colours(dtype)
    options = options | {"compression": compression}
    inverted = np.iinfo(dtype).max - image
    for pixels, expected, kind in (
        (image, image, {"photometric": "minisblack"}),
        (image, inverted, {"photometric": "miniswhite"}),
        (colour, colour, {"photometric": "rgb"}),
        (np.moveaxis(colour, 2, 0), colour, {"photometric": "rgb", "planarconfig": "separate"}),
    ):
        found = read(written(pixels, **options, **kind))
        np.testing.assert_array_equal(found, eight_bits(expected), err_msg=str(kind))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
def test_a_strip_that_is_cut_or_damaged_is_refused(compression: Any, capfd: pytest.CaptureFixture) -> None:
    smooth = np.add.outer(np.arange(96), np.arange(200)).astype(np.uint8)
    data = written(smooth, photometric="minisblack", compression=compression, rowsperstrip=8)
    np.testing.assert_array_equal(read(data)[..., 0], smooth)
    with tifffile.TiffFile(io.BytesIO(data.tobytes())) as file:
        page = file.pages.first
        at, size = page.dataoffsets[5], page.databytecounts[5]
        sizes = page.tags["StripByteCounts"]
    width = 2 if sizes.dtype == tifffile.DATATYPE.SHORT else 4
    short = data.copy()
    short[sizes.valueoffset + 5 * width :][:width] = np.frombuffer((size // 3).to_bytes(width, "little"), np.uint8)
    for broken in (data[: at + size // 2], short):
        with pytest.raises(UnreadableImageError):
            read(broken)
    assert capfd.readouterr() == ("", "")


SMOOTH = np.add.outer(np.arange(96), np.arange(200)).astype(np.uint8)
OFFSETS, SIZES, TILE_OFFSETS, TILE_SIZES = 273, 279, 324, 325


def with_field(data: np.ndarray, tag: int, *, values: int | None = None, zero_at: int | None = None) -> np.ndarray:
    """The file with the first values only of a field, or with zero in place of one of them."""
    data = data.copy()
    with tifffile.TiffFile(io.BytesIO(data.tobytes())) as file:
        field = file.pages.first.tags[tag]
    width = 2 if field.dtype == tifffile.DATATYPE.SHORT else 4
    if values is not None:
        data[field.offset + 4 : field.offset + 8] = np.frombuffer(values.to_bytes(4, "little"), np.uint8)
    if zero_at is not None:
        data[field.valueoffset + zero_at * width :][:width] = 0
    return data


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_strip_or_tile_that_is_not_there_is_refused(compression: Any, tile: Any) -> None:
    """tifffile and libtiff leave its pixels black, or as the memory was."""
    layout = {"tile": tile} if tile else {"rowsperstrip": 16}
    data = written(SMOOTH, photometric="minisblack", compression=compression, **layout)
    offsets, sizes = (TILE_OFFSETS, TILE_SIZES) if tile else (OFFSETS, SIZES)
    if compression != "jpeg":
        np.testing.assert_array_equal(read(data)[..., 0], SMOOTH)
    fewer = with_field(with_field(data, offsets, values=4), sizes, values=4)
    for broken in (with_field(data, sizes, zero_at=2), with_field(data, offsets, zero_at=2), fewer):
        with pytest.raises(UnreadableImageError, match="contradicts itself"):
            read(broken)


def test_tiles_in_the_fields_of_strips_are_read() -> None:
    """As libtiff wrote them in the nineties."""
    data = written(SMOOTH, photometric="minisblack", tile=(16, 16)).copy()
    with tifffile.TiffFile(io.BytesIO(data.tobytes())) as file:
        fields = [(file.pages.first.tags[tag].offset, tag) for tag in (TILE_OFFSETS, TILE_SIZES)]
    for (at, _), tag in zip(fields, (OFFSETS, SIZES), strict=True):
        data[at : at + 2] = np.frombuffer(tag.to_bytes(2, "little"), np.uint8)
    np.testing.assert_array_equal(read(data)[..., 0], SMOOTH)


@pytest.mark.parametrize("tag", [259, 262, 277, 284])
def test_a_field_with_two_values_where_one_is_meant_is_refused(tag: int) -> None:
    """tifffile took 1 and 0 for another planar configuration, and returned memory as it was."""
    data = written(colours(np.uint8), photometric="rgb", compression="zlib")
    with pytest.raises(UnreadableImageError, match="contradicts itself"):
        read(with_field(data, tag, values=2))


@pytest.mark.parametrize("kind", ["minisblack", "rgb", "ycbcr"])
def test_damaged_jpeg_data_in_a_strip_are_refused(kind: Any, capfd: pytest.CaptureFixture) -> None:
    """OpenCV shows what libjpeg made of them."""
    pixels = SMOOTH if kind == "minisblack" else np.stack([SMOOTH, 255 - SMOOTH, SMOOTH[::-1]], axis=2)
    data = written(pixels, photometric=kind, compression="jpeg", rowsperstrip=48)
    assert read(data).shape == (96, 200, 3)
    with tifffile.TiffFile(io.BytesIO(data.tobytes())) as file:
        page = file.pages.first
        end, size = page.dataoffsets[1] + page.databytecounts[1], page.databytecounts[1]
    broken = data.copy()
    broken[end - size // 4 : end - 2] = 0
    with pytest.raises(UnreadableImageError, match="damaged"):
        read(broken)
    assert capfd.readouterr() == ("", "")


def test_a_strip_whose_jpeg_has_less_rows_is_refused() -> None:
    data = written(SMOOTH, photometric="minisblack", compression="jpeg", rowsperstrip=48).copy()
    frame = data.tobytes().index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = np.frombuffer((40).to_bytes(2), np.uint8)
    with pytest.raises(UnreadableImageError):
        read(data)


def test_tables_beside_the_jpeg_strips_are_used() -> None:
    """As libtiff writes them."""
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "TIFF", compression="jpeg")
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as stored:
        assert stored.pages.first.jpegtables
    found = read(np.frombuffer(file.getvalue(), np.uint8))[..., 0]
    assert np.abs(found.astype(int) - SMOOTH).max() <= 40


@pytest.mark.parametrize("kind", ["minisblack", "miniswhite"])
def test_planes_of_grey_and_another_value_are_read(kind: Any) -> None:
    """libtiff returns the negative of the second kind."""
    two = RNG.integers(0, 256, (2, HEIGHT, WIDTH), dtype=np.uint8)
    data = written(two, photometric=kind, planarconfig="separate", extrasamples=["unspecified"])
    expected = two[0] if kind == "minisblack" else 255 - two[0]
    np.testing.assert_array_equal(read(data)[..., 0], expected)


def test_a_field_that_is_there_twice_is_refused() -> None:
    """Decoders take the first one, or the last."""
    data = written(grey(np.uint8), photometric="minisblack", extratags=[(274, 3, 1, 1, True)])
    at = data.tobytes().index((274).to_bytes(2, "little") + b"\3\0\1\0\0\0")
    data = data.copy()
    data[at : at + 2] = np.frombuffer((262).to_bytes(2, "little"), np.uint8)  # photometric interpretation
    with pytest.raises(UnreadableImageError, match="contradicts itself"):
        read(data)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits_have_the_scale_of_a_16_bit_container(bits: Any) -> None:
    image, colour = grey(np.uint16, largest=2**bits - 1), colours(np.uint16, largest=2**bits - 1)
    for pixels, kind in ((image, "minisblack"), (colour, "rgb")):
        packed = read(written(pixels, photometric=kind, bitspersample=bits), bits)
        np.testing.assert_array_equal(packed, eight_bits(pixels, bits=bits))
        np.testing.assert_array_equal(packed, read(written(pixels, photometric=kind), bits))


def test_packed_bits_of_another_number_than_at_training_are_refused() -> None:
    data = written(grey(np.uint16, largest=100), photometric="minisblack", bitspersample=12)  # dark
    with pytest.raises(UnreadableImageError, match="it has 12 bits a channel, and 16 are expected, as at training"):
        read(data, 16)
    with pytest.raises(UnreadableImageError, match=r"has 12 bits a channel, and 8 are expected.*--bit-depth 12$"):
        read(data, 8)


@pytest.mark.parametrize("meaning", ["unspecified", "assocalpha", "unassalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("byteorder", "<>")
def test_further_samples_are_dropped(meaning: str, dtype: type, byteorder: Any) -> None:
    options: dict[str, Any] = {"extrasamples": [meaning], "byteorder": byteorder}
    with_alpha, two = colours(dtype, samples=4), colours(dtype, samples=2)
    np.testing.assert_array_equal(read(written(with_alpha, photometric="rgb", **options)), eight_bits(with_alpha))
    found = read(written(two, photometric="minisblack", planarconfig="contig", **options))
    np.testing.assert_array_equal(found, eight_bits(two[..., 0]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_the_orientation_is_applied_by_both_decoders(orientation: int, planar: Any) -> None:
    colour = colours(np.uint16)
    pixels = np.moveaxis(colour, 2, 0) if planar == "separate" else colour
    tag = (274, 3, 1, orientation, True)
    found = read(written(pixels, photometric="rgb", planarconfig=planar, extratags=[tag]))
    plain = Image.fromarray(eight_bits(colour))
    plain.getexif()[274] = orientation
    np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(plain)))


@pytest.mark.parametrize(("bits", "steps"), [(2, 85), (4, 17)])
def test_few_bits_are_scaled_to_eight(bits: int, steps: int) -> None:
    image = grey(np.uint8, largest=2**bits - 1)
    found = read(written(image, photometric="minisblack", bitspersample=bits), 8)
    np.testing.assert_array_equal(found, eight_bits(image * steps))


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (grey(np.uint8).astype(np.int16), {}, "pixels are signed or floating-point numbers"),
        (grey(np.uint8).astype(np.float32), {}, "pixels are signed or floating-point numbers"),
        (grey(np.uint8).astype(np.uint32), {}, "pixels have 32 bits"),
        (colours(np.uint16, samples=4), {"photometric": "separated"}, "16-bit colours are not RGB"),
        (colours(np.uint8), {"photometric": "cielab"}, "colour space is number 8"),
    ],
)
def test_what_no_decoder_understands_is_refused(pixels: np.ndarray, options: dict, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"a TIFF whose {reason}.*save it as PNG"):
        read(written(pixels, **{"photometric": "minisblack"} | options))


def test_many_samples_or_a_depth_are_refused_before_memory_is_allocated() -> None:
    many = np.zeros((8, 8, 5), np.uint16)
    for pixels, options in (
        (many, {"photometric": "minisblack", "planarconfig": "contig", "compression": "zstd"}),
        (many[..., 0], {"photometric": "minisblack", "compression": "zstd", "tile": (16, 16, 16), "volumetric": True}),
    ):
        volume = np.stack([pixels] * 4) if options.get("volumetric") else pixels
        with pytest.raises(UnreadableImageError, match=r"a TIFF of the shape \("):
            read(written(volume, **options))


def test_without_tifffile_the_remedy_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "tifffile":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    data = written(np.moveaxis(colours(np.uint16), 2, 0), photometric="rgb", planarconfig="separate")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnreadableImageError, match=r"one plane after another.*pip install 'msc-edge\[tiff\]', or save"):
        read(data)


def test_a_planar_file_with_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(np.moveaxis(colours(np.uint16), 2, 0), photometric="rgb", planarconfig="separate")
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(HEIGHT * WIDTH - 1))
    with pytest.raises(UnreadableImageError, match="larger than"):
        read(data)


@given(st.data())
def test_a_damaged_header_gives_a_header_or_the_reason(data: st.DataObject) -> None:
    whole = written(colours(np.uint16), photometric="rgb", byteorder=data.draw(st.sampled_from("<>"))).copy()
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(4, 400))] = data.draw(st.integers(0, 255))
    cut = whole[: data.draw(st.integers(4, len(whole)))]
    with suppress(UnreadableImageError):
        header = tiff_header(cut.data)
        assert header is not None
        assert header.misread is None or header.misread


def test_other_files_have_no_header() -> None:
    for content in (b"", b"II", b"\x89PNG\r\n\x1a\n", b"IIIIIIIIIIIIIIII"):
        assert tiff_header(memoryview(content)) is None
