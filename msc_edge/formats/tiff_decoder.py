"""TIFF files that OpenCV misreads, decoded by tifffile: planes, 10, 12 and 14 packed bits, zero as white, and more."""

import io

import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.formats.orientation import turned
from msc_edge.formats.tiff import BLACK_IS_ZERO, FAX, RGB, WHITE_IS_ZERO, TiffHeader

_REMEDY = "save it as PNG, or as TIFF with 8 or 16 bits, pixel by pixel, uncompressed"

_MOST_SAMPLES = 4  # of a pixel: colours and alpha


def decode_tiff(data: np.ndarray, header: TiffHeader) -> np.ndarray:
    """Decode the first page of a TIFF file, uint8 (n,): RGB (height, width, 3), in the file's own bits.

    uint8 for up to 8 bits, which are scaled to 8, else uint16. UnreadableImageError where the file is not understood,
    or tifffile is not installed.
    """
    bits = header.bits[0]
    understood = header.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) and header.sample_format == 1
    if not understood or bits > 16 or len(set(header.bits)) > 1 or header.compression in FAX:
        raise UnreadableImageError(f"it is a TIFF whose {header.misread}, which is not supported; save it as PNG")
    try:
        import tifffile  # noqa: PLC0415
    except ImportError as error:
        raise UnreadableImageError(
            f"it is a TIFF whose {header.misread}, which needs another decoder: pip install 'msc-edge[tiff]', or "
            f"{_REMEDY}"
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(data.data)) as file:
            page = file.pages[0]
            axes = page.axes
            # Before memory is allocated: a header may declare thousands of samples, or a depth.
            if (
                sorted(axes) not in (["X", "Y"], ["S", "X", "Y"])
                or page.size > _MOST_SAMPLES * header.width * header.height
            ):
                raise UnreadableImageError(f"it is a TIFF of the shape {page.shape}, which is not supported; {_REMEDY}")
            pixels = page.asarray()
    except UnreadableImageError:
        raise
    except MemoryError as error:
        raise UnreadableImageError("there is not enough memory to decode it") from error
    except Exception as error:  # tifffile and imagecodecs raise many types
        raise UnreadableImageError(f"the TIFF decoder refused it ({error!s:.200}); {_REMEDY}") from error
    if "S" not in axes:
        pixels, axes = pixels[..., None], axes + "S"
    pixels = pixels.transpose([axes.index(each) for each in "YXS"])
    return turned(_three_channels(pixels, header, bits), header.orientation)


def _three_channels(pixels: np.ndarray, header: TiffHeader, bits: int) -> np.ndarray:
    largest = 2**bits - 1
    colours = pixels[..., :3] if header.photometric == RGB else np.repeat(pixels[..., :1], 3, axis=2)
    if header.photometric == WHITE_IS_ZERO:
        colours = largest - colours
    if bits < 8:
        colours = colours.astype(np.uint16) * 255 // largest
    return np.ascontiguousarray(colours, dtype=np.uint8 if bits <= 8 else np.uint16)
