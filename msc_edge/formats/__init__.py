"""Files by their headers and structure: what a file holds, and whether native code reads it as it is meant.

A decoder that accepts a file has not always understood it. OpenCV 5.0 returns uninitialised memory for some TIFF files,
a negative for others, and noise for some BMP files. Each module knows one container and what of it OpenCV misreads
(`benchmarks/decode_suites.py` compares with other decoders). `hnsw` does the same for the index files of hnswlib,
which it would follow out of memory.
"""

from msc_edge.errors import UnreadableImageError

_DAMAGED = "not an image, or a truncated or damaged one"
NOT_SUPPORTED = f"{_DAMAGED}, or a format that is not supported; save it as PNG, JPEG, TIFF, BMP, WebP or PNM"
NO_MEMORY = "there is not enough memory to read it; close other programs, or shrink the image"

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BEGINNINGS += tuple(b"P%d" % number for number in range(1, 7))  # PNM
FIRST_BYTES = max(map(len, _BEGINNINGS))


def damaged(reason: str = "") -> UnreadableImageError:
    """The error for a file that is no image or a damaged one, with the reason where it is known."""
    return UnreadableImageError(f"{_DAMAGED}{reason and f': {reason}'}; copy, save or take it again")


def is_image(start: bytes) -> bool:
    """Whether a file may be an image of a supported format, from its first bytes."""
    return start.startswith(_BEGINNINGS)
