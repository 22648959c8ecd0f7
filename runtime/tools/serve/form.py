"""The image in the body of a request: the body itself, or one part of a form."""

from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

FORM = "multipart/form-data"
FIELD = "image"
_MAX_PARTS = 16
_LONGEST_NAME = 255
_AT_ONCE = 1 << 20  # bytes
_REMEDY = "let an HTTP library build the form, or send the content of the image file as the body"


@dataclass(frozen=True)
class MediaType:
    """The content type of a request."""

    name: str
    boundary: bytes = b""
    """Of a form."""

    @classmethod
    def of(cls, headers: "dict[str, str]") -> "MediaType":
        """The content type in the headers, by lower-case names.

        Raises HTTPException: 415 where it is neither an image, nor bytes, nor a form; 400 for a form without boundary.
        """
        if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"bodies in {encoding!r:.40} encoding are not read; send the image as it is, without Content-Encoding",
            )
        name, options = parse_options_header(headers.get("content-type", "application/octet-stream"))
        found = name.decode("latin-1")
        if found == FORM:
            if not (boundary := options.get(b"boundary", b"")):
                raise HTTPException(HTTPStatus.BAD_REQUEST, f"the form has no boundary in its Content-Type; {_REMEDY}")
            return cls(found, boundary)
        if not found.startswith("image/") and found != "application/octet-stream":
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"the Content-Type is {found!r:.80}; send the content of an image file as image/* or "
                f"application/octet-stream, or {FORM} with the field {FIELD!r}",
            )
        return cls(found)


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""
    file_name: bytes = b""
    data: bytearray = field(default_factory=bytearray)


def image_in(body: bytearray, media_type: MediaType) -> tuple[str, np.ndarray]:
    """The file name that the client gave, "" without one, and the content of the image file, uint8 (n,).

    HTTPException 400 where a form is broken or has not exactly one image. A form is parsed in Python: call this on a
    thread.
    """
    if media_type.name != FORM:
        return "", np.frombuffer(body, np.uint8)
    try:
        parts = _parts(body, media_type.boundary)
    except FormParserError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the form is broken: {error}; {_REMEDY}") from error
    images = [part for part in parts if part.name == FIELD.encode()]
    if len(images) != 1:
        found = ", ".join(repr(_clean(part.name)) for part in parts) or "none"
        raise HTTPException(
            HTTPStatus.BAD_REQUEST,
            f"the form has {len(images)} fields {FIELD!r} (its fields: {found}); send one image in each request",
        )
    return _clean(images[0].file_name), np.frombuffer(images[0].data, np.uint8)


def _parts(body: bytearray, boundary: bytes) -> list[_Part]:
    """The parts of a form; data is kept of those that are images only."""
    parts: list[_Part] = []
    header = bytearray(), bytearray()
    complete: list[bool] = []

    def begin() -> None:
        if len(parts) == _MAX_PARTS:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"the form has more than {_MAX_PARTS} fields; send one image")
        parts.append(_Part())

    def end_header() -> None:
        parts[-1].headers[bytes(header[0]).lower()] = bytes(header[1])
        for each in header:
            each.clear()

    def end_headers() -> None:
        _, options = parse_options_header(parts[-1].headers.get(b"content-disposition"))
        parts[-1].name, parts[-1].file_name = options.get(b"name", b""), options.get(b"filename", b"")

    def data(chunk: bytes, start: int, end: int) -> None:
        if parts[-1].name == FIELD.encode():
            parts[-1].data += memoryview(chunk)[start:end]

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": lambda chunk, start, end: header[0].extend(chunk[start:end]),
            "on_header_value": lambda chunk, start, end: header[1].extend(chunk[start:end]),
            "on_header_end": end_header,
            "on_headers_finished": end_headers,
            "on_part_data": data,
            "on_end": lambda: complete.append(True),
        },
    )
    for start in range(0, len(body), _AT_ONCE):
        parser.write(bytes(memoryview(body)[start : start + _AT_ONCE]))
    parser.finalize()
    if not complete:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the form is broken: its last boundary is missing; {_REMEDY}")
    return parts


def _clean(name: bytes) -> str:
    """The last part of a path, as text without control characters. It is shown, and never used as a path."""
    text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in text if character.isprintable())[:_LONGEST_NAME]
