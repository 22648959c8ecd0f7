"""Requests that the HTTP library refuses before they reach the application: their status, the cause and the remedy."""

from http import HTTPStatus

LARGEST_HEAD = 64 * 1024
"""Bytes of the request line and the headers together."""

_BAD = HTTPStatus.BAD_REQUEST
# By the beginning of the message of h11.
_KNOWN: dict[str, tuple[HTTPStatus, str]] = {
    "missing mandatory host": (
        _BAD,
        "the request has no Host header, which HTTP/1.1 requires; send one, such as 'Host: 127.0.0.1:8000'",
    ),
    "found multiple host": (_BAD, "the request has several Host headers; send one"),
    "receive buffer too long": (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"the request line and the headers have more than {LARGEST_HEAD} bytes; send fewer or shorter headers, and the "
        "image in the body",
    ),
    "only transfer-encoding": (
        HTTPStatus.NOT_IMPLEMENTED,
        "the Transfer-Encoding is not supported; send a body with Content-Length, or 'Transfer-Encoding: chunked'",
    ),
    "multiple transfer-encoding": (
        HTTPStatus.NOT_IMPLEMENTED,
        "the request has several Transfer-Encoding headers; send one, 'chunked', or a Content-Length",
    ),
    "bad content-length": (_BAD, "the Content-Length is not a whole number; state the number of bytes of the body"),
    "conflicting content-length": (_BAD, "the request has different Content-Length headers; send one"),
    "illegal request line": (
        _BAD,
        "the request does not begin with a line such as 'POST /score HTTP/1.1'; send it with an HTTP library, and with "
        "http:// in the address, because this server was started without --tls-cert",
    ),
    "illegal method": (_BAD, "the method has characters that HTTP does not allow; use GET or POST"),
    "illegal target": (_BAD, "the path has characters that HTTP does not allow; encode them, a space as %20"),
    "illegal header": (
        _BAD,
        "a header is not of the form 'Name: value', or has a control character; send headers with an HTTP library",
    ),
    "illegal chunk": (
        _BAD,
        "the body is not in chunks, as Transfer-Encoding says; send it with an HTTP library, or with Content-Length",
    ),
}
_KNOWN["no request line"] = _KNOWN["illegal request line"]
_KNOWN["continuation line"] = _KNOWN["illegal header"]
_KNOWN["malformed chunk"] = _KNOWN["illegal chunk"]


def refusal(error: BaseException | None) -> tuple[HTTPStatus, str]:
    """The status and the text of the response to a request, from the error of h11."""
    reason = str(error or "")
    for beginning, known in _KNOWN.items():
        if reason.lower().startswith(beginning):
            return known
    return _BAD, f"the request is not valid HTTP/1.1{reason and f' ({reason:.80})'}; send it with an HTTP library"
