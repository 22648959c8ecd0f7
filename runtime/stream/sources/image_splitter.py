"""Finds the images in the body of an HTTP answer: JPEG or PNG, in parts or one after the other.

Cameras write boundaries, headers and lengths of parts in many wrong ways. An image itself says where it ends, so only
its own structure counts: markers of JPEG, chunks of PNG. The line between two parts is a second witness. Where it
comes before the end of an image, the image was cut, and the next image is not mistaken for the rest of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BYTES = 64 << 20  # of one image

_START = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n")
_PNG_END = re.compile(rb"\0\0\0\0IEND\xaeB`\x82|\x89PNG\r\n\x1a\n")  # or the beginning of another one
_PNG_END_LENGTH = 12
_KEPT = 1 << 16  # bytes between two images that are kept to find the delimiter in
_MIN_DELIMITER = 3  # bytes; a shorter line occurs in images by chance

# In compressed data, 0xFF 0x00 is a byte, 0xFF 0xD0 to 0xFF 0xD7 are restarts, and several 0xFF are padding.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_EOI, _SOI, _SOS, _TEM = 0xD9, 0xD8, 0xDA, 0x01
_WITHOUT_LENGTH = {_TEM, *range(0xD0, 0xD8)}


class UnsplittableError(Exception):
    """The end of an image cannot be found; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image in a body."""

    data: bytes
    is_whole: bool
    """Whether it reaches to its end marker. It may still be damaged."""


class ImageSplitter:
    """Takes a body piece by piece and yields its images, whole or cut."""

    def __init__(self, boundary: str | None) -> None:
        """`boundary`: as declared in the header. It is used where the body agrees with it."""
        declared = (boundary or "").strip().strip('"').strip().encode("latin-1", "replace")
        core = declared.strip(b"-")
        self._declared = [each for each in (b"--" + declared, declared, core) if core]
        self._delimiter: re.Pattern[bytes] | None = None
        self._buffer = bytearray()
        self._walk: Iterator[FoundEnd | None] | None = None
        """Of the image that the buffer begins with; None between two images."""
        self._end: FoundEnd | None = None
        self._searched = 0  # the delimiter is not before this position
        self._is_extra = False  # the image is a second one of its part

    def feed(self, data: bytes) -> Iterator[FoundImage]:
        """Add bytes and yield the images that they complete. Raises UnsplittableError."""
        self._buffer += data
        while self._walk is not None or self._begin():
            end = self._find_end()
            if end is None:
                if len(self._buffer) > MAX_BYTES:
                    raise UnsplittableError(f"an image is larger than {MAX_BYTES >> 20} MB")
                return
            image = self._take(*end)
            if not self._is_extra:
                yield image

    def finish(self) -> FoundImage | None:
        """The cut image that the body ended in, if any."""
        return self._take(len(self._buffer), False) if self._walk is not None else None

    def _take(self, end: int, is_whole: bool) -> FoundImage:
        image = FoundImage(bytes(self._buffer[:end]), is_whole)
        del self._buffer[:end]
        self._walk = None
        return image

    def _begin(self) -> bool:
        """Skip what is before the next image; whether there is one."""
        start = _START.search(self._buffer)
        if start is None:
            del self._buffer[:-_KEPT]
            return False
        has_parts = self._delimiter is not None
        # A preview behind the image, in the same part: it would be scored as the next part.
        self._is_extra = not self._learn_delimiter(bytes(self._buffer[: start.start()])) and has_parts
        del self._buffer[: start.start()]
        self._end, self._searched = None, 0
        self._walk = _jpeg_end(self._buffer) if self._buffer[0] == 0xFF else _png_end(self._buffer)
        return True

    def _learn_delimiter(self, between: bytes) -> bool:
        """Find the line that separates parts: the one with the declared boundary, or the first that begins with --.

        Returns whether there is one.
        """
        if self._delimiter and self._delimiter.search(between):
            return True
        lines = [line.strip() for line in between.splitlines()]
        for wanted in self._declared:
            found = next((line for line in lines if wanted in line), None)
            if found is not None:
                break
        else:
            found = next((line for line in lines if line.startswith(b"--")), b"")
        if len(found) >= _MIN_DELIMITER:
            self._delimiter = re.compile(re.escape(found) + rb"[ \t]*\r?\n")
            return True
        return False

    def _find_end(self) -> "FoundEnd | None":
        """The end of the image that the buffer begins with, if it has come."""
        damaged = False
        if self._end is None:
            assert self._walk is not None, "within an image"
            try:
                self._end = next(self._walk)
            except StopIteration:  # neither the next image nor the end of this one can be found by structure
                damaged = True
        limit = len(self._buffer) if self._end is None else self._end[0]
        if self._delimiter:
            if cut := self._delimiter.search(self._buffer, self._searched, limit):
                return cut.start(), False
            self._searched = max(0, limit - len(self._delimiter.pattern))
        elif damaged:
            raise UnsplittableError("an image is damaged, and nothing marks where the next one begins")
        return self._end


FoundEnd = tuple[int, bool]
"""Where an image ends, and whether it is whole. The beginning of another image is an end, too."""


def _jpeg_end(data: bytearray) -> Iterator[FoundEnd | None]:
    """Yield None until the end of the JPEG has come, then its end. Ends without it where the structure is damaged."""
    position = 2
    while True:
        while len(data) < position + 4 and not data[position:].startswith(b"\xff\xd9"):
            yield None
        marker = data[position + 1]
        if data[position] != 0xFF:
            return
        if marker == 0xFF:  # padding
            position += 1
        elif marker == _EOI:
            yield position + 2, True
        elif marker == _SOI:
            yield position, False
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            length = int.from_bytes(data[position + 2 : position + 4], "big")
            if marker == 0 or length < 2:
                return
            position += 2 + length
            if marker == _SOS:
                while (found := _MARKER.search(data, position)) is None:
                    position = max(position, len(data) - 1)
                    yield None
                position = found.end() - 2


def _png_end(data: bytearray) -> Iterator[FoundEnd | None]:
    """As `_jpeg_end`, for PNG."""
    position = 8  # after its own signature
    while (found := _PNG_END.search(data, position)) is None:
        position = max(8, len(data) - _PNG_END_LENGTH)
        yield None
    yield (found.end(), True) if found[0].startswith(b"\0") else (found.start(), False)
