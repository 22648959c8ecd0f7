import h11
import pytest

from msc_edge.runtime.web.refused_requests import LARGEST_HEAD, refusal

HOST = b"Host: a\r\n"
BODY = b"POST /score HTTP/1.1\r\n" + HOST


def error_of(sent: bytes) -> h11.RemoteProtocolError:
    """The error of h11 for these bytes."""
    connection = h11.Connection(h11.SERVER, LARGEST_HEAD)
    connection.receive_data(sent)
    try:
        while connection.next_event() is not h11.NEED_DATA:
            pass
    except h11.RemoteProtocolError as error:
        return error
    raise AssertionError("h11 accepts it")


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"POST /score HTTP/1.1\r\n\r\n", 400, "no Host header, which HTTP/1.1 requires; send one"),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400, "several Host headers; send one"),
        (b"GET / HTTP/1.1\r\nX: " + bytes(LARGEST_HEAD).replace(b"\0", b"x"), 431, "more than 65536 bytes; send fewer"),
        (BODY + b"Transfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding is not supported; send a body with"),
        (BODY + 2 * b"Transfer-Encoding: chunked\r\n" + b"\r\n", 501, "several Transfer-Encoding headers; send one"),
        (BODY + b"Content-Length: -1\r\n\r\n", 400, "not a whole number; state the number of bytes"),
        (BODY + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "different Content-Length headers; send one"),
        (b"garbage\r\n\r\n", 400, "does not begin with a line such as 'POST /score HTTP/1.1'; send it"),
        (b"\r\n\r\n\r\n", 400, "does not begin with a line such as"),
        (b"\x16\x03\x01\x02\x00", 400, "with http:// in the address"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "not of the form 'Name: value'"),
        (b"GET / HTTP/1.1\r\n continued\r\n\r\n", 400, "not of the form 'Name: value'"),
        (
            BODY + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n",
            400,
            "not in chunks, as Transfer-Encoding says",
        ),
        (BODY + b"Transfer-Encoding: chunked\r\n\r\n1\r\naXX", 400, "not in chunks, as Transfer-Encoding says"),
    ],
)
def test_each_error_of_the_http_library_has_its_cause_and_remedy(sent, status, message):
    found, text = refusal(error_of(sent))
    assert found == status
    assert message in text


def test_any_other_error_is_quoted():
    assert refusal(ValueError("x" * 1000))[1] == (
        f"the request is not valid HTTP/1.1 ({'x' * 80}); send it with an HTTP library"
    )
    assert refusal(None)[1] == "the request is not valid HTTP/1.1; send it with an HTTP library"
