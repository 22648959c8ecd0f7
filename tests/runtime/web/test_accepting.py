"""Connections that do not negotiate TLS, too many of them, and a server without free file descriptors."""

import asyncio
import http.client
import resource
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from msc_edge.runtime.web.accepting import MOST_OPEN, Acceptor
from msc_edge.runtime.web.listening import listening_socket

TIMEOUT = 60.0


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def is_closed(client: socket.socket) -> bool:
    """Waits until the server closes the connection."""
    with suppress(ConnectionError):
        return client.recv(1) == b""
    return True


def healthz(port: int, certificate: Path) -> int:
    trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    connection = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT, context=trusted)
    connection.request("GET", "/healthz")
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def open_files(server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def secure(start, toy_kit, certificate):
    """A server with TLS."""
    return start(toy_kit, "--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_client_that_does_not_negotiate_is_disconnected(certificate, sent):
    async def run() -> list[asyncio.Protocol]:
        made: list[asyncio.Protocol] = []
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        listening = listening_socket("127.0.0.1", 0)
        port = listening.getsockname()[1]
        acceptor = Acceptor(listening, asyncio.Protocol, connections=made, tls=tls, handshake=0.05)
        with connect(port) as client:
            client.sendall(sent)
            while not await asyncio.to_thread(is_closed, client):  # an alert may come before the end
                pass
        acceptor.close()
        await acceptor.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        return made

    assert asyncio.run(run()) == []


def test_silent_clients_are_counted_before_the_handshake_and_keep_nobody_out(secure, certificate):
    before = open_files(secure)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(secure.port)) for _ in range(MOST_OPEN + 40)]
        assert healthz(secure.port, certificate) == 200
        assert open_files(secure) <= before + MOST_OPEN
        assert all(is_closed(client) for client in clients[:40])  # the oldest ones


def test_connections_far_beyond_the_limit_are_closed_until_others_end():
    class Made(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"made")

    async def run() -> bytes:
        connections: list[object] = [None] * MOST_OPEN
        listening = listening_socket("127.0.0.1", 0)
        port = listening.getsockname()[1]
        acceptor = Acceptor(listening, Made, connections=connections, tls=None)
        with connect(port) as client:
            assert await asyncio.to_thread(is_closed, client)
        del connections[-1]
        with connect(port) as client:
            response = await asyncio.to_thread(client.recv, 4)
        acceptor.close()
        await acceptor.wait_closed()
        return response

    assert asyncio.run(run()) == b"made"


def test_without_free_file_descriptors_a_server_logs_the_cause_and_recovers(start, toy_kit):
    server = start(toy_kit)
    assert server.document  # the answers below are compared with it
    limit = open_files(server) + 8
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connect(server.port))
        while open_files(server) < limit:
            time.sleep(0.01)
        late = connect(server.port)
        late.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    with late:
        assert late.recv(65536).startswith(b"HTTP/1.1 200")
    assert server.request("/healthz").status == 200
    code, printed = server.stop()
    assert code == 0
    assert printed
    for line in printed.splitlines():  # one, or one more for each ten seconds that this takes
        assert f"all {limit} files and connections that this process may open are in use" in line
        assert "ulimit -n" in line
