"""The header of a TIFF file: what its first page holds, and what of it OpenCV 5.0 misreads (TIFF 6.0; BigTIFF)."""

import struct
from typing import NamedTuple

from msc_edge.formats import damaged
from msc_edge.formats.opencv import refuse_too_many_pixels

_MAGIC = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_FORMATS = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8
_FORMATS_OF_EXIF = {**_FORMATS, 1: "B", 8: "h", 9: "i"}  # BYTE, SSHORT, SLONG: cameras write them too
_FORMATS_OF_IMAGE = {**_FORMATS, 7: "B"}  # UNDEFINED: tables of JPEG
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_SAMPLES, _PLANAR, _COLOR_MAP, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 277, 284, 320, 338, 339
_STRIP_OFFSETS, _ROWS, _STRIP_SIZES, _JPEG_TABLES = 273, 278, 279, 347
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_TAGS = frozenset(
    {
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION),
        *(_SAMPLES, _PLANAR, _COLOR_MAP, _EXTRA_SAMPLES, _SAMPLE_FORMAT),
        *(_STRIP_OFFSETS, _ROWS, _STRIP_SIZES, _JPEG_TABLES),
        *(_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_SIZES),
    }
)
_EXIF_PREFIX = b"Exif\0\0"
_MOST_VALUES = 1 << 20  # of a field: one for each strip

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, _YCBCR)
_UNASSOCIATED_ALPHA = 2
_PLANES, _UNSIGNED, _JPEG = 2, 1, 7
_UNCOMPRESSED = 1


class TiffHeader(NamedTuple):
    """Of the first page of a TIFF file."""

    width: int
    height: int
    bits: tuple[int, ...]
    """Of each sample."""
    compression: int
    photometric: int
    orientation: int
    samples: int
    planar: int
    """1: pixel by pixel; 2: plane by plane."""
    sample_format: int
    """1: unsigned integers."""
    palette: tuple[int, ...]
    """The colour map: 16-bit values, all red ones first."""
    tiled: bool
    parts: tuple[tuple[int, int], ...]
    """Offset and size of each strip or tile."""
    rows: int
    """Of each strip or tile; the last one may have fewer."""
    jpeg_tables: bytes
    """A JPEG file with the tables of all strips, without pixels; empty where the strips have them."""
    unassociated_alpha_at: int | None
    """The byte that declares the first extra sample as unassociated alpha, by which libtiff multiplies the colours."""

    @property
    def misread(self) -> str | None:
        """Why OpenCV would misread it, to follow `its`; None: it reads it right."""
        bits, several = self.bits[0], self.samples > 1
        plain = self.compression == _UNCOMPRESSED or (self.compression == _JPEG and bits == 8)
        reasons = {
            "samples have different numbers of bits": len(set(self.bits)) > 1,
            "pixels are signed or floating-point numbers": self.sample_format != _UNSIGNED,
            f"pixels have {bits} bits": bits not in (1, 8, 16),
            # OpenCV drops the report of libtiff that a strip is damaged, and returns it black.
            f"compression is number {self.compression}": not plain,
            "pixels are stored in tiles": self.tiled,
            f"colour space is number {self.photometric}": self.photometric not in _COLOURS,
            "colours are YCbCr": self.photometric == _YCBCR and self.compression != _JPEG,  # decoders disagree
            "palette is not complete, or of 8 bits": self.photometric == PALETTE and not self._has_palette,
            "zero is white": bits == 16 and self.photometric == WHITE_IS_ZERO,
            "16-bit colours are not RGB": bits == 16 and self.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB),
            "colours are stored one plane after another": bits == 16 and self.planar == _PLANES and several,
            "pixels have other values beside grey": self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
            and (self.samples > 2 or (several and (bits == 16 or self.planar == _PLANES))),
        }
        return next((reason for reason, misread in reasons.items() if misread), None)

    @property
    def planes(self) -> int:
        """In how many planes the pixels are stored."""
        return self.samples if self.planar == _PLANES else 1

    @property
    def rows_of_parts(self) -> list[int]:
        """The rows of the image in each strip."""
        return [min(self.rows, self.height - row) for row in range(0, self.height, self.rows)] * self.planes

    @property
    def is_jpeg(self) -> bool:
        """Whether each strip is a JPEG file."""
        return self.compression == _JPEG

    @property
    def _has_palette(self) -> bool:
        return len(self.palette) == 3 << self.bits[0] and max(self.palette) > 255


def tiff_header(data: memoryview) -> TiffHeader | None:
    """The header of the first page, from the bytes of a file; None for another file.

    UnreadableImageError where the file is too damaged to tell, lacks a part of the pixels, or has too many of them.
    """
    order = _MAGIC.get(bytes(data[:4]))
    if order is None:
        return None
    try:
        return _first_page(data, order, big=data[2 if order == "<" else 3] == ord("+"))
    except (struct.error, LookupError, ArithmeticError, ValueError) as error:
        raise damaged("its first page is cut off, or contradicts itself") from error


def orientation_of(exif: memoryview) -> int:
    """The orientation in a block of EXIF, which is a TIFF file without image; 1 where there is none, or damaged."""
    order = _MAGIC.get(bytes(exif[:4]))
    try:
        found = _tags(exif, order, _FORMATS_OF_EXIF, big=False)[0] if order else {}
    except (struct.error, LookupError, OverflowError):
        return 1
    return next(iter(found.get(_ORIENTATION, ())), 1)


def without_prefix(exif: memoryview) -> memoryview:
    """A block of EXIF without the prefix of JPEG, which many programs write into WebP and PNG, too."""
    return exif[len(_EXIF_PREFIX) :] if exif[: len(_EXIF_PREFIX)] == _EXIF_PREFIX else exif


def _tags(
    data: memoryview, order: str, formats: dict[int, str], *, big: bool
) -> tuple[dict[int, tuple[int, ...]], int | None]:
    """The values of the tags of the first page, and the byte that declares unassociated alpha."""
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    first, size, inline = (start + 8, 20, 8) if big else (start + 2, 12, 4)
    found: dict[int, tuple[int, ...]] = {}
    alpha_at = None
    for place in range(first, first + size * min(count, 4096), size):
        tag, kind = struct.unpack_from(f"{order}HH", data, place)
        if tag not in _TAGS:
            continue
        if tag in found:  # decoders take the first one, or the last
            raise IndexError(tag)
        (length,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, place + 4)
        values = f"{order}{min(length, _MOST_VALUES)}{formats[kind]}"
        at = place + (12 if big else 8)
        if struct.calcsize(f"{order}{formats[kind]}") * length > inline:
            (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at)
        found[tag] = struct.unpack_from(values, data, at)
        if tag == _EXTRA_SAMPLES and found[tag][:1] == (_UNASSOCIATED_ALPHA,):
            alpha_at = at + struct.calcsize(formats[kind]) - 1 if order == ">" else at
    return found, alpha_at


def _first_page(data: memoryview, order: str, *, big: bool) -> TiffHeader:
    found, alpha_at = _tags(data, order, _FORMATS_OF_IMAGE, big=big)

    def one(tag: int, default: int | None = None) -> int:
        (value,) = found.get(tag, () if default is None else (default,))  # of several, decoders take any one
        return value

    tiled = _TILE_WIDTH in found
    rows, columns = (one(_TILE_LENGTH), one(_TILE_WIDTH)) if tiled else (one(_ROWS, one(_HEIGHT)), one(_WIDTH))
    # Old files have the tiles in the fields of strips.
    offsets, sizes = (_TILE_OFFSETS, _TILE_SIZES) if _TILE_OFFSETS in found else (_STRIP_OFFSETS, _STRIP_SIZES)
    header = TiffHeader(
        width=one(_WIDTH),
        height=one(_HEIGHT),
        bits=found.get(_BITS) or (1,),
        compression=one(_COMPRESSION, 1),
        photometric=one(_PHOTOMETRIC),
        orientation=one(_ORIENTATION, 1),
        samples=one(_SAMPLES, 1),
        planar=one(_PLANAR, 1),
        palette=found.get(_COLOR_MAP, ()),
        tiled=tiled,
        parts=tuple(zip(found[offsets], found[sizes], strict=True)),
        rows=rows,
        jpeg_tables=bytes(found.get(_JPEG_TABLES, ())),
        sample_format=max(found.get(_SAMPLE_FORMAT) or (1,)),
        unassociated_alpha_at=alpha_at,
    )
    refuse_too_many_pixels(header.height, header.width)
    _check_parts(header, columns, len(data))
    return header


def _check_parts(header: TiffHeader, columns: int, end: int) -> None:
    """IndexError where a strip or tile, of `columns` pixels in width, is missing or empty.

    Decoders leave its pixels black, or as the memory was. Also where an uncompressed strip is shorter than its rows, or
    runs past the end of the file.
    """
    if len(header.parts) != header.planes * -(-header.height // header.rows) * -(-header.width // columns):
        raise IndexError("a strip is missing, or left over")
    least = [1] * len(header.parts)
    if header.compression == _UNCOMPRESSED and not header.tiled:
        samples = 1 if header.planes > 1 else header.samples
        stride = (header.width * header.bits[0] * samples + 7) // 8
        least = [rows * stride for rows in header.rows_of_parts]
    for (start, size), wanted in zip(header.parts, least, strict=True):
        if not start or size < wanted or start + wanted > end:
            raise IndexError("a strip is cut")
