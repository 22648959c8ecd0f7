"""BMP files are read as they are meant, or refused with the reason."""

import io
import struct
from contextlib import suppress
from itertools import pairwise

import numpy as np
import PIL.Image
import pytest

from msc_edge.errors import UnreadableImageError
from msc_edge.images import decode_image

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 11, 13
COLOURS = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
INDICES = RNG.integers(0, 16, (HEIGHT, WIDTH), dtype=np.uint8)
MASKS = {
    "BGRX": (0xFF0000, 0xFF00, 0xFF),
    "RGBX": (0xFF, 0xFF00, 0xFF0000),
    "XRGB": (0xFF00, 0xFF0000, 0xFF000000),
    "XBGR": (0xFF000000, 0xFF0000, 0xFF00),
}


def bmp(
    bits: int, compression: int, data: bytes, *, header: int = 40, masks: tuple[int, ...] = (), palette: bytes = b""
) -> np.ndarray:
    """The bytes of a file whose rows go upwards."""
    info = struct.pack("<IiiHHIIiiII", header, WIDTH, HEIGHT, 1, bits, compression, len(data), 2835, 2835, 0, 0)
    info += struct.pack(f"<{len(masks)}I", *masks)
    info += bytes(max(0, header - len(info)))
    offset = 14 + len(info) + len(palette)
    file = b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + palette + data
    return np.frombuffer(file, np.uint8)


def by_masks(masks: tuple[int, ...]) -> bytes:
    shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
    pixels = sum(COLOURS[..., number].astype(np.uint32) << shift for number, shift in enumerate(shifts))
    return np.asarray(pixels)[::-1].astype("<u4").tobytes()


def runs(rows: np.ndarray, *, extra: int = 0, nibbles: bool = False) -> bytes:
    """RLE8 or RLE4: each row as runs of equal pixels, the last one longer by `extra`."""
    out = bytearray()
    for row in rows[::-1]:
        ends = [0, *(np.flatnonzero(np.diff(row.astype(int))) + 1), len(row)]
        for start, end in pairwise(ends):
            count = end - start + (extra if end == len(row) else 0)
            out += bytes([count, int(row[start]) * (17 if nibbles else 1)])
        out += b"\0\0"
    return bytes(out + b"\0\1")


PALETTE_BYTES = np.dstack([PALETTE[None, :, ::-1], np.zeros((1, 256, 1), np.uint8)]).tobytes()


@pytest.mark.parametrize("header", [56, 108, 124])
@pytest.mark.parametrize("order", MASKS)
def test_bit_masks_are_used_where_the_header_has_room_for_alpha(header: int, order: str) -> None:
    masks = (*MASKS[order], 0xFFFFFFFF & ~sum(MASKS[order]))
    found = decode_image(bmp(32, 3, by_masks(MASKS[order]), header=header, masks=masks))
    np.testing.assert_array_equal(found, COLOURS)


@pytest.mark.parametrize("header", [40, 52])
@pytest.mark.parametrize("order", MASKS)
def test_bit_masks_are_used_with_other_headers(header: int, order: str) -> None:
    data = bmp(32, 3, by_masks(MASKS[order]), header=header, masks=MASKS[order])
    np.testing.assert_array_equal(decode_image(data), COLOURS)


@pytest.mark.parametrize(
    ("masks", "bits"),
    [((), (5, 5, 5)), ((0x7C00, 0x3E0, 0x1F), (5, 5, 5)), ((0xF800, 0x7E0, 0x1F), (5, 6, 5))],
)
def test_16_bits_a_pixel_are_spread_over_all_levels(masks: tuple[int, ...], bits: tuple[int, ...]) -> None:
    shares = RNG.random((HEIGHT, WIDTH, 3))
    shares[0, :2] = [[0, 0, 0], [1, 1, 1]]
    largest = np.array([2**each - 1 for each in bits])
    levels = np.round(shares * largest).astype(np.uint16)
    pixels = levels[..., 0] << (bits[1] + bits[2]) | levels[..., 1] << bits[2] | levels[..., 2]
    rows = np.zeros((HEIGHT, WIDTH + WIDTH % 2), np.uint16)
    rows[:, :WIDTH] = pixels[::-1]
    found = decode_image(bmp(16, 3 if masks else 0, rows.astype("<u2").tobytes(), masks=masks))
    np.testing.assert_array_equal(found, np.round(levels / largest * 255).astype(np.uint8))
    assert (found[0, 0] == 0).all()
    assert (found[0, 1] == 255).all()


@pytest.mark.parametrize("masks", [(0xFC00, 0x3F0, 0xF), (0xF800, 0x7C0, 0x5F), (0, 0, 0)])
def test_odd_bit_masks_are_refused(masks: tuple[int, ...]) -> None:
    with pytest.raises(UnreadableImageError, match="bit masks that are not supported; save it as PNG"):
        decode_image(bmp(16, 3, bytes(4 * HEIGHT * WIDTH), masks=masks))


def test_a_file_whose_pixels_overlap_its_palette_or_are_missing_is_refused() -> None:
    rows = np.zeros((HEIGHT, 16), np.uint8).tobytes()
    whole = bmp(8, 0, rows, palette=PALETTE_BYTES)
    assert decode_image(whole).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UnreadableImageError, match="the last rows of this BMP are missing"):
        decode_image(whole[:-1])
    with pytest.raises(UnreadableImageError, match="overlap its palette"):
        decode_image(bmp(8, 0, rows, palette=PALETTE_BYTES[:400]))


@pytest.mark.parametrize("nibbles", [False, True])
def test_run_lengths_are_read_where_they_end_with_their_row(nibbles: bool) -> None:
    palette = PALETTE_BYTES[: 64 if nibbles else None]
    bits, compression = (4, 2) if nibbles else (8, 1)
    found = decode_image(bmp(bits, compression, runs(INDICES, nibbles=nibbles), palette=palette))
    np.testing.assert_array_equal(found, PALETTE[INDICES])
    with pytest.raises(UnreadableImageError, match="run lengths that continue past the end of a row"):
        decode_image(bmp(bits, compression, runs(INDICES, extra=3, nibbles=nibbles), palette=palette))


def test_pixels_between_runs_are_counted() -> None:
    rows = b"".join(bytes([0, WIDTH]) + row.tobytes() + bytes(WIDTH % 2) + b"\0\0" for row in INDICES[::-1])
    np.testing.assert_array_equal(decode_image(bmp(8, 1, rows + b"\0\1", palette=PALETTE_BYTES)), PALETTE[INDICES])


def os2(bits: int, rows: np.ndarray, *, colours: int = 0, offset: int | None = None) -> np.ndarray:
    """The bytes of a file with the 12-byte header of OS/2, and three bytes for each colour of its palette."""
    palette = PALETTE[:colours, ::-1].tobytes()
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-1].tobytes()
    info = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits) + palette
    file = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(info) if offset is None else offset) + info + padded
    return np.frombuffer(file, np.uint8)


def nibbles_of(rows: np.ndarray) -> np.ndarray:
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    return even[:, ::2] << 4 | even[:, 1::2]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (os2(24, COLOURS[..., ::-1].reshape(HEIGHT, -1)), COLOURS),
        (os2(8, INDICES, colours=256), PALETTE[INDICES]),
        (os2(8, INDICES, colours=16), PALETTE[INDICES]),
        (os2(4, nibbles_of(INDICES), colours=16), PALETTE[INDICES]),
        (os2(1, np.packbits(INDICES > 7, axis=1), colours=2), PALETTE[(INDICES > 7).astype(int)]),
    ],
    ids=["24 bits", "8 bits", "8 bits with 16 colours", "4 bits", "1 bit"],
)
def test_the_header_of_os2_is_read(data: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_image(data), expected)
    np.testing.assert_array_equal(PIL.Image.open(io.BytesIO(data.tobytes())).convert("RGB"), expected)


BGR = np.pad(COLOURS[::-1, :, ::-1].reshape(HEIGHT, -1), ((0, 0), (0, 1))).tobytes()
EIGHT_BITS = np.pad(INDICES[::-1], ((0, 0), (0, 3))).tobytes()


def with_bytes(data: np.ndarray, at: int, value: int) -> np.ndarray:
    changed = data.copy()
    changed[at : at + 4] = np.frombuffer(struct.pack("<I", value), np.uint8)
    return changed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        *((with_bytes(bmp(24, 0, BGR), 10, offset), "overlap its header") for offset in (0, 1, 14, 53)),
        (with_bytes(bmp(32, 3, by_masks(MASKS["BGRX"]), masks=MASKS["BGRX"]), 10, 54), "overlap its header"),
        (os2(24, np.zeros((HEIGHT, 3 * WIDTH), np.uint8), offset=25), "overlap its header"),
        (os2(24, np.zeros((HEIGHT - 1, 3 * WIDTH), np.uint8)), "the last rows of this BMP are missing"),
        (os2(16, np.zeros((HEIGHT, 2 * WIDTH), np.uint8)), "the header of this BMP is not valid"),
        (os2(8, INDICES, colours=15), "has colour 15, and its palette has 15"),
        (with_bytes(bmp(8, 0, EIGHT_BITS, palette=PALETTE_BYTES), 46, 15), "has colour 15, and its palette has 15"),
        (with_bytes(bmp(8, 1, runs(INDICES), palette=PALETTE_BYTES), 46, 15), "has colour 15, and its palette has 15"),
        (with_bytes(bmp(24, 0, BGR), 14, 16), "a header of 16 bytes, which is not supported; save it as PNG"),
        (bmp(32, 3, by_masks(MASKS["BGRX"]), header=64), "of a kind .compression 3, 32 bits"),
        (bmp(8, 2, runs(INDICES, nibbles=True), palette=PALETTE_BYTES), "of a kind .compression 2, 8 bits"),
    ],
)
def test_pixels_that_the_file_does_not_have_are_refused(data: np.ndarray, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(data)


def test_a_cut_file_gives_one_reason() -> None:
    whole = bmp(8, 1, runs(INDICES), palette=PALETTE_BYTES)
    for length in range(2, len(whole), 7):
        with suppress(UnreadableImageError):
            assert decode_image(whole[:length]).shape == (HEIGHT, WIDTH, 3)
