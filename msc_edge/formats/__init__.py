"""Files by their headers and structure: what a file holds, and whether native code reads it as it is meant.

A decoder that accepts a file has not always understood it. OpenCV 5.0 returns uninitialised memory for some TIFF files,
a negative for others, and noise for some BMP files. Each module knows one container and what of it OpenCV misreads
(`benchmarks/decode_suites.py` compares with other decoders). `hnsw` does the same for the index files of hnswlib,
which it would follow out of memory.
"""

DAMAGED = "not an image, or a truncated or damaged one"
NOT_SUPPORTED = f"{DAMAGED}, or a format that is not supported; save it as PNG, JPEG, TIFF, BMP, WebP or PNM"

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BEGINNINGS += tuple(b"P%d" % number for number in range(1, 7))  # PNM
FIRST_BYTES = max(map(len, _BEGINNINGS))


def is_image(start: bytes) -> bool:
    """Whether a file may be an image of a supported format, from its first bytes."""
    return start.startswith(_BEGINNINGS)
