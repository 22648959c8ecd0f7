"""The HTTP server of a stream: /metrics for Prometheus, /healthz and /readyz for a supervisor."""

import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.web.listening import is_loopback, why_not_opened

_MAX_CONNECTIONS = 32


class StatusServer:
    """Serves /metrics, /healthz and /readyz on its own threads, until `close`."""

    def __init__(
        self, host: str, port: int, metrics: Metrics, *, not_ready: Callable[[], list[str]], timeout: float = 2.0
    ) -> None:
        """Open the port; 0 is any free one. UsageError when it cannot be opened.

        `not_ready` returns the reasons why the stream is not ready, none when it is. It is called from several
        threads. A client may be silent for `timeout` seconds; a connection lasts three times as long at most.
        """
        try:
            self._server = _Server(host, port, metrics, not_ready, timeout)
        except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
            cause, wrong = why_not_opened(error)
            remedy = "correct `host`" if wrong == "host" else "choose another `port`"
            raise UsageError(
                f"port {port} of {host} cannot be opened for /metrics: {cause}; {remedy} in [http] of the configuration"
            ) from error
        self.port: int = self._server.server_address[1]
        """The open port."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="msc-edge http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the port and all connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections(older_than=0.0)


def _disconnect(request: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        request.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class _Connection:
    accepted: float
    """`time.monotonic()`."""
    local: bool
    """From this PC."""


class _Server(ThreadingHTTPServer):
    # On Windows this option lets two programs open one port; elsewhere it lets a restarted program open it at once.
    allow_reuse_address = os.name != "nt"
    allow_reuse_port = False
    request_queue_size = 2 * _MAX_CONNECTIONS

    def __init__(
        self, host: str, port: int, metrics: Metrics, not_ready: Callable[[], list[str]], timeout: float
    ) -> None:
        self.metrics = metrics
        self.not_ready = not_ready
        self.client_timeout = timeout
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, _Connection] = {}  # the oldest first
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        super().__init__(address, _Handler)  # pyright: ignore[reportArgumentType]  (an IPv6 address has four parts)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up the host name, which takes many seconds without a name server.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._make_room(request, local=is_loopback(client_address[0])):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def _make_room(self, request: socket.socket, *, local: bool) -> bool:
        """Whether a new connection is served. With too many, the oldest ends: it had the most time to ask.

        Another PC never takes the place of a connection of this one, where the supervisor is.
        """
        with self._lock:
            if len(self._connections) >= _MAX_CONNECTIONS:
                remote = [each for each, found in self._connections.items() if not found.local]
                if not remote and not local:
                    return False
                oldest = next(iter(remote or self._connections))
                del self._connections[oldest]
                _disconnect(oldest)
            self._connections[request] = _Connection(time.monotonic(), local)
            return True

    def shutdown_request(self, request: socket.socket) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        # A timeout for each read is not enough: a client that sends a byte at times would keep its connection.
        self.close_connections(older_than=3 * self.client_timeout)

    def close_connections(self, *, older_than: float) -> None:
        """Close the connections that are older than this, in seconds."""
        with self._lock:
            for request, found in self._connections.items():
                if time.monotonic() - found.accepted >= older_than:
                    _disconnect(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: a client that disconnects is no failure of the stream."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version = "msc-edge"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.client_timeout)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, self.server.metrics.as_text(), CONTENT_TYPE_LATEST)
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n")
        elif path == "/readyz":
            self._answer_ready()
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"available: /metrics, /healthz and /readyz\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        # The base class answers 501 to methods without a do_ function; 405 is the status for a wrong method.
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._answer(status, f"{status.phrase}\n".encode())

    def _answer_ready(self) -> None:
        try:
            reasons = self.server.not_ready()
        except Exception as error:  # the client needs an answer, and this one is not "ready"
            reasons = [f"readiness is unknown: {error}"]
        if reasons:
            self._answer(
                HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons).encode(errors="replace")
            )
        else:
            self._answer(HTTPStatus.OK, b"ready\n")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: an access log would bury the log of the stream."""
