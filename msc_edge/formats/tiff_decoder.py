"""TIFF files that OpenCV misreads, decoded by tifffile: planes, 10, 12 and 14 packed bits, zero as white, and more."""

import io
import logging

import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.formats import NO_MEMORY
from msc_edge.formats.orientation import turned
from msc_edge.formats.tiff import BLACK_IS_ZERO, CMYK, PALETTE, RGB, WHITE_IS_ZERO, TiffHeader

_REMEDY = "save it as PNG, or as TIFF with 8 or 16 bits, pixel by pixel, uncompressed"

_MOST_SAMPLES = 4  # of a pixel: colours and alpha
# None, LZW, Deflate (two), PackBits, LZMA, Zstandard. Others hold images of their own, whose size can be another one,
# or no decoder reports damage in them (fax).
_COMPRESSIONS = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})


def decode_tiff(data: np.ndarray, header: TiffHeader) -> np.ndarray:
    """Decode the first page of a TIFF file, uint8 (n,): RGB (height, width, 3), in the file's own bits.

    uint8 for up to 8 bits, which are scaled to 8, else uint16. UnreadableImageError where the file is not understood,
    or tifffile is not installed.
    """
    bits = header.bits[0]
    understood = (
        header.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE)
        or (header.photometric == CMYK and header.samples == len("CMYK") and bits == 8)
        or (header.photometric == RGB and header.samples >= len("RGB"))
    ) and header.sample_format == 1
    if not understood or bits > 16 or len(set(header.bits)) > 1 or header.compression not in _COMPRESSIONS:
        raise UnreadableImageError(f"it is a TIFF whose {header.misread}, which is not supported; save it as PNG")
    try:
        import tifffile  # noqa: PLC0415
    except ImportError as error:
        raise UnreadableImageError(
            f"it is a TIFF whose {header.misread}, which needs another decoder: pip install 'msc-edge[tiff]', or "
            f"{_REMEDY}"
        ) from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # the error says it, with the path
    try:
        with tifffile.TiffFile(io.BytesIO(data.data)) as file:
            page = file.pages.first
            # Before memory is allocated: a header may declare thousands of samples, or a depth.
            if (
                sorted(page.axes) not in (["X", "Y"], ["S", "X", "Y"])
                or page.size > _MOST_SAMPLES * header.width * header.height
            ):
                raise UnreadableImageError(f"it is a TIFF of the shape {page.shape}, which is not supported; {_REMEDY}")
            pixels, axes = page.asarray(), page.axes
            if "S" not in axes:
                pixels, axes = pixels[..., None], axes + "S"
            pixels = pixels.transpose([axes.index(each) for each in "YXS"])
            if header.photometric == PALETTE:
                pixels, bits = (np.reshape(header.palette, (3, -1)).T[pixels[..., 0]] >> 8).astype(np.uint8), 8
    except UnreadableImageError:
        raise
    except MemoryError as error:
        raise UnreadableImageError(NO_MEMORY) from error
    except Exception as error:  # tifffile and imagecodecs raise many types
        raise UnreadableImageError(f"the TIFF decoder refused it ({error!s:.200}); {_REMEDY}") from error
    return turned(_three_channels(pixels, header, bits), header.orientation)


def _three_channels(pixels: np.ndarray, header: TiffHeader, bits: int) -> np.ndarray:
    largest = 2**bits - 1
    if header.photometric == CMYK:  # as libtiff converts it
        light = 255 - pixels.astype(np.uint16)
        return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)
    colours = pixels[..., :3] if header.photometric in (RGB, PALETTE) else np.repeat(pixels[..., :1], 3, axis=2)
    if header.photometric == WHITE_IS_ZERO:
        colours = largest - colours
    if bits < 8:
        colours = colours.astype(np.uint16) * 255 // largest
    return np.ascontiguousarray(colours, dtype=np.uint8 if bits <= 8 else np.uint16)
