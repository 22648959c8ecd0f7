"""PNG files: chunks that run past the end of the file."""

from msc_edge.errors import UnreadableImageError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_png(data: memoryview) -> None:
    """UnreadableImageError for a PNG with a chunk that is longer than the file; nothing for other files.

    OpenCV allocates the length that a chunk declares, up to 4 GiB, before it reads the chunk.
    """
    position = len(_SIGNATURE)
    if data[:position] != _SIGNATURE:
        return
    while position + 8 <= len(data) and data[position + 4 : position + 8] != b"IEND":
        position += 12 + int.from_bytes(data[position : position + 4])
    if position + 8 > len(data):
        raise UnreadableImageError(
            "not an image, or a truncated or damaged one: a chunk of this PNG runs past the end of the file"
        )
