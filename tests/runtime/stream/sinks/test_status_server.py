import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sinks.status_server import StatusServer

TIMEOUT = 30.0


class Stream:
    """The stream that a server serves."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.reasons: list[str] = []
        self.failure: Exception | None = None

    def not_ready(self) -> list[str]:
        if self.failure:
            raise self.failure
        return self.reasons

    def serve(self, host: str = "127.0.0.1", port: int = 0, *, timeout: float = 5.0) -> StatusServer:
        return StatusServer(host, port, self.metrics, not_ready=self.not_ready, timeout=timeout)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Stream, StatusServer]]:
    stream = Stream()
    server = stream.serve()
    yield stream, server
    server.close()


@pytest.fixture
def stream(shared: tuple[Stream, StatusServer]) -> Iterator[Stream]:
    stream, _ = shared
    yield stream
    stream.reasons, stream.failure = [], None


@pytest.fixture
def server(shared: tuple[Stream, StatusServer]) -> StatusServer:
    return shared[1]


@pytest.fixture
def patient() -> Iterator[StatusServer]:
    """A server whose clients may be silent for an hour."""
    server = Stream().serve(timeout=3600.0)
    yield server
    server.close()


@pytest.fixture
def impatient() -> Iterator[StatusServer]:
    """A server whose clients may be silent for 0.3 s."""
    server = Stream().serve(timeout=0.3)
    yield server
    server.close()


def request(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


def test_metrics(server: StatusServer, stream: Stream) -> None:
    stream.metrics.add_source("cam")
    status, text, headers = request(server, "/metrics")
    assert status == 200
    assert headers.get_content_type() == "text/plain"
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"msc_edge_frames", "msc_edge_stage_seconds", "msc_edge_outbox_depth"} <= families
    assert text == stream.metrics.as_text().decode()


def test_health_and_readiness(server: StatusServer, stream: Stream) -> None:
    assert request(server, "/healthz")[:2] == (200, "ok\n")
    assert request(server, "/readyz")[:2] == (200, "ready\n")
    stream.reasons = ["source cam: stalled", "no frame of ümlaut for 40 s"]
    assert request(server, "/readyz")[:2] == (503, "source cam: stalled\nno frame of ümlaut for 40 s\n")
    stream.failure = OutputError("the state cannot be read")
    status, text, _ = request(server, "/readyz")
    assert (status, "the state cannot be read" in text) == (503, True)
    assert request(server, "/healthz?again")[:2] == (200, "ok\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/healthz%00"])
def test_any_other_path_is_404(server: StatusServer, path: str) -> None:
    assert request(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE", "BREW"])
def test_any_other_method_is_405(server: StatusServer, method: str) -> None:
    status, _, headers = request(server, "/metrics", method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/no"])
def test_head_is_get_without_the_body(server: StatusServer, path: str) -> None:
    status, body, headers = request(server, path, "HEAD")
    expected = request(server, path)
    assert (status, body) == (expected[0], "")
    assert headers["Content-Length"] == expected[2]["Content-Length"]


def test_nothing_is_printed(server: StatusServer, capfd: pytest.CaptureFixture[str]) -> None:
    request(server, "/no")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert b"Bad Request" in client.makefile("rb").read()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /metrics HT")
    request(server, "/healthz")
    assert capfd.readouterr() == ("", "")


def test_slow_clients_do_not_block_another(server: StatusServer) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    for client in slow:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
    for _ in range(5):
        assert request(server, "/healthz")[0] == 200
    for client in slow:
        client.close()


@pytest.mark.parametrize("count", [32, 100])
def test_silent_clients_do_not_take_the_place_of_another(patient: StatusServer, count: int) -> None:
    """They have an hour. A supervisor that gets no answer from /healthz kills the stream."""
    silent = [socket.create_connection(("127.0.0.1", patient.port), timeout=TIMEOUT) for _ in range(count)]
    for _ in range(5):
        assert request(patient, "/healthz")[0] == 200
    for client in silent:
        client.close()


OTHER_PC = """
import contextlib, http.client, socket
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sinks.status_server import StatusServer

server = StatusServer("0.0.0.0", 0, Metrics(), not_ready=list, timeout=3600.0)

def connect(host):
    return socket.create_connection((host, server.port), timeout=20, source_address=(host, 0))

def is_served(client):
    client.sendall(b"GET /healthz HTTP/1.0\\r\\n\\r\\n")
    with contextlib.suppress(ConnectionError):
        return client.recv(100).startswith(b"HTTP/1.0 200")

mine = [connect("127.0.0.1") for _ in range(20)]
other = [connect("192.0.2.1") for _ in range(100)]
assert all(is_served(client) for client in mine), "connections of this PC stay"
assert is_served(connect("127.0.0.1")), "and a new one is served"
full = [connect("127.0.0.1") for _ in range(32)]
other = [connect("192.0.2.1") for _ in range(5)]
assert all(is_served(client) for client in full)
"""


def test_another_pc_cannot_take_the_place_of_a_client_of_this_one() -> None:
    """In a network namespace whose loopback has the address of another PC."""
    setup = 'ip link set lo up && ip addr add 192.0.2.1/32 dev lo && exec "$0" -c "$1"'
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace can be made here (root on Linux can)")
    subprocess.run(["unshare", "-n", "sh", "-c", setup, sys.executable, OTHER_PC], check=True)


def test_silent_clients_are_disconnected_and_others_are_served_again(impatient: StatusServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", impatient.port), timeout=TIMEOUT) for _ in range(50)]
    # Those beyond the maximum at once, the others after the timeout.
    for client in silent:
        try:
            assert client.recv(1) == b""
        except ConnectionError:
            pass
        finally:
            client.close()
    assert request(impatient, "/healthz")[0] == 200


def test_a_client_that_sends_a_byte_at_times_is_disconnected(impatient: StatusServer) -> None:
    deadline = time.monotonic() + TIMEOUT
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=TIMEOUT) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):  # noqa: PT012
            while time.monotonic() < deadline:
                client.sendall(b"X: y\r\n")
                time.sleep(0.1)


def test_a_port_in_use_is_reported_with_the_remedy(server: StatusServer, stream: Stream) -> None:
    with pytest.raises(UsageError, match=rf"port {server.port} of 127\.0\.0\.1.*another `port`.*\[http\]"):
        stream.serve(port=server.port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a..b"])
def test_an_address_of_another_pc_is_reported_with_the_remedy(stream: Stream, host: str) -> None:
    with pytest.raises(UsageError, match=r"correct `host` in \[http\]"):
        stream.serve(host)


def test_the_port_is_free_after_close(stream: Stream) -> None:
    first = stream.serve()
    kept = socket.create_connection(("127.0.0.1", first.port), timeout=TIMEOUT)
    request(first, "/healthz")
    first.close()
    assert kept.recv(1) == b""
    kept.close()
    with pytest.raises(ConnectionError):
        request(first, "/healthz")
    again = stream.serve(port=first.port)
    assert request(again, "/healthz")[0] == 200
    again.close()


def test_ipv6(stream: Stream) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    server = stream.serve("::1")
    connection = http.client.HTTPConnection("::1", server.port, timeout=TIMEOUT)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    server.close()
