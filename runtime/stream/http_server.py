"""A small HTTP server: few connections, each for a short time, on threads of their own. It needs no extra."""

import os
import socket
import socketserver
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msc_edge.runtime.web.listening import is_loopback

_MAX_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class _Connection:
    accepted: float
    """`time.monotonic()`."""
    local: bool
    """From this PC."""


class BoundedServer(ThreadingHTTPServer):
    """Serves requests from `start` to `stop`. A slow or silent client keeps no other one from being served."""

    # On Windows this option lets two programs open one port; elsewhere it lets a restarted program open it at once.
    allow_reuse_address = os.name != "nt"
    allow_reuse_port = False
    request_queue_size = 2 * _MAX_CONNECTIONS

    def __init__(self, host: str, port: int, handler: type["BoundedHandler"], *, timeout: float) -> None:
        """Open the port; 0 is any free one. OSError or UnicodeError when it cannot be opened.

        A client may be silent for `timeout` seconds; a connection lasts three times as long at most.
        """
        self.client_timeout = timeout
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, _Connection] = {}  # the oldest first
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        super().__init__(address, handler)  # pyright: ignore[reportArgumentType]  (an IPv6 address has four parts)

    def start(self, name: str) -> None:
        """Serve on a thread of this name."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.2,), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.close_connections(older_than=0.0)

    def server_bind(self) -> None:
        """See TCPServer."""
        # HTTPServer.server_bind looks up the host name, which takes many seconds without a name server.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See ThreadingMixIn."""
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

    def keep(self, request: socket.socket) -> None:
        """Keep a connection, whatever its age, until its response: its request is whole, and the response takes time.

        It no longer counts among the connections at once: the caller limits how many there are.
        """
        with self._lock:
            self._connections.pop(request, None)

    def shutdown_request(self, request: socket.socket) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See TCPServer."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """See BaseServer."""
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


class BoundedHandler(BaseHTTPRequestHandler):
    """Handles one request of a connection. `methods` are those with a `do_` function."""

    server: BoundedServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version = "msc-edge"
    sys_version = ""
    methods: str

    def setup(self) -> None:
        """See StreamRequestHandler."""
        super().setup()
        self.connection.settimeout(self.server.client_timeout)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """See BaseHTTPRequestHandler."""
        # The base class answers 501 to methods without a do_ function; 405 is the status for a wrong method.
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.respond(status, f"{status.phrase}\n".encode())

    def respond(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        """Send a response."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", self.methods)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: an access log would bury the log of the stream."""


def _disconnect(request: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        request.shutdown(socket.SHUT_RDWR)
