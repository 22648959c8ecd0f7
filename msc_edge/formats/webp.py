"""WebP files: the orientation in their EXIF data, which OpenCV 5.0 reads in one of two forms only (RFC 9649)."""

from msc_edge.formats.tiff import orientation_of, without_prefix


def is_webp(data: memoryview) -> bool:
    """Whether a file is a WebP, from its first bytes."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def webp_orientation(data: memoryview) -> int:
    """The orientation in the EXIF data of a WebP file, 1 to 8; 1 where there are none."""
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            return orientation_of(without_prefix(data[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
    return 1
