"""Clients that are slow, broken, or too many, on raw sockets."""

import json
import socket
from contextlib import ExitStack

import pytest

from msc_edge.runtime.web.connection import MOST

TIMEOUT = 60.0
HEAD = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)


def received(client: socket.socket) -> bytes:
    """All until the server closes the connection."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def status(response: bytes) -> int:
    return int(response.split(b" ")[1])


@pytest.fixture(scope="module")
def impatient(start, patch_kit):
    """A server whose clients have one second, and which scores one image at a time."""
    return start(patch_kit, "--timeout", 1, "--workers", 1, "--max-bytes", 200_000)


def test_a_client_that_sends_nothing_is_disconnected(impatient):
    with connect(impatient) as client:
        assert received(client) == b""


def test_a_client_that_never_ends_the_head_is_disconnected(impatient):
    with connect(impatient) as client:
        client.sendall(HEAD)
        assert received(client) == b""


def test_a_body_that_stays_away_is_408_and_holds_no_worker(impatient, photos):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(impatient)) for _ in range(40)]
        for client in clients:
            client.sendall(HEAD + b"Content-Length: 1000\r\n\r\nabc")
        answer = impatient.request("/score", (photos / "warn.png").read_bytes())
        assert answer.status == 200
        for client in clients:
            response = received(client)
            assert status(response) == 408
            assert "did not arrive within 1 seconds" in json.loads(response.partition(b"\r\n\r\n")[2])["error"]


def test_a_request_of_two_lengths_is_refused_and_hides_no_other(impatient):
    """RFC 9112, section 6.3: a proxy may take the other length, and pass on what it did not check."""
    hidden = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    body = b"0\r\n\r\n" + hidden
    with connect(impatient) as client:
        client.sendall(HEAD + f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body)
        response = received(client)
    assert status(response) == 400
    assert response.count(b"HTTP/1.1 ") == 1


def test_an_idle_connection_is_closed_after_its_response(impatient):
    with connect(impatient) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = received(client)
        assert (status(response), response.endswith(b"ok\n")) == (200, True)


def test_a_client_that_does_not_read_its_response_is_disconnected(impatient, photos):
    """The heatmaps of many pipelined requests do not fit into the buffers between both."""
    image = (photos / "warn.png").read_bytes()
    request = HEAD.replace(b"/score", b"/heatmap") + f"Content-Length: {len(image)}\r\n\r\n".encode() + image
    with socket.socket() as client:
        client.settimeout(TIMEOUT)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", impatient.port))
        with pytest.raises(ConnectionError):
            client.sendall(request * 20_000)
    assert impatient.request("/healthz").status == 200


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\n\r\n", 400),  # without Host
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS to a server without it
        (b"GET /kit HTTP/1.1\r\nHost: a\x00b\r\n\r\n", 400),
        (b"BREW /score HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /kit HTTP/1.0\r\n\r\n", 421),
    ],
)
def test_every_error_is_json_and_says_what_to_do(impatient, sent, expected):
    with connect(impatient) as client:
        client.sendall(sent)
        response = received(client)
    assert status(response) == expected
    ((name, text),) = json.loads(response.partition(b"\r\n\r\n")[2]).items()
    assert name == "error"
    assert "; " in text, "what to do"


def test_a_client_that_leaves_in_the_middle_harms_nobody(impatient, photos):
    image = (photos / "warn.png").read_bytes()
    for end in (0, 10, len(image)):
        with connect(impatient) as client:
            client.sendall(HEAD + f"Content-Length: {len(image)}\r\n\r\n".encode() + image[:end])
    assert impatient.request("/score", image).status == 200


def test_a_refused_client_that_goes_on_sending_reads_its_response(impatient):
    """413 comes before the end of the body, and the rest of the body must not reset the connection."""
    with connect(impatient) as client:
        client.sendall(HEAD + b"Content-Length: 3000000\r\n\r\n")
        for _ in range(30):
            client.sendall(bytes(100_000))
        assert status(received(client)) == 413


def test_a_client_that_asks_first_is_refused_before_it_sends(impatient):
    with connect(impatient) as client:
        client.sendall(HEAD + b"Content-Length: 3000000\r\nExpect: 100-continue\r\n\r\n")
        assert status(received(client)) == 413


def test_too_many_connections_are_503(start, toy_kit):
    server = start(toy_kit)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(MOST)]
        for client in clients:  # accepted for certain
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        with connect(server) as another:
            response = received(another)
        assert status(response) == 503
        assert b"\r\nRetry-After: 1\r\n" in response
    answers = [server.request("/healthz").status for _ in range(3)]
    assert answers[-1] == 200


def test_a_server_with_such_clients_prints_nothing(start, toy_kit):
    server = start(toy_kit, "--timeout", 1)
    for sent in (b"garbage\r\n\r\n", HEAD, HEAD + b"Content-Length: 10\r\n\r\n", HEAD + b"Upgrade: websocket\r\n\r\n"):
        with connect(server) as client:
            client.sendall(sent)
            received(client)
    assert server.stop() == (0, "")
