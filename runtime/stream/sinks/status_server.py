"""What other programs ask a stream for: /metrics for Prometheus, /healthz and /readyz for whoever supervises it."""

import errno
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from msc_edge.calibration import Verdict
from msc_edge.errors import UsageError
from msc_edge.runtime.stream.events import Event, EventKind
from msc_edge.runtime.stream.frame import Decision

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MOST_CONNECTIONS = 32


class Metrics:
    """The counts and times of one stream, for Prometheus. Safe to use from several threads."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"msc_edge_{name}", words, labels, registry=registry)

        def gauge(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(f"msc_edge_{name}", words, labels, registry=registry)

        self._frames = counter("frames_total", "Frames that were scored", "source", "verdict")
        self._dropped = counter("frames_dropped_total", "Frames of live sources that nobody scored", "source")
        self._unreadable = counter("unreadable_total", "Image files that could not be read", "source")
        self._events = counter("events_total", "Events, by kind", "kind")
        self._results_lost = counter("results_lost_total", "Rows and images that could not be written")
        self._events_lost = counter("events_lost_total", "Events dropped from the outbox: it was full, or they too old")
        self._restarts = counter("source_restarts_total", "Restarts of a live source", "source")
        self._up = gauge("source_up", "1 while frames of the source are scored, else 0", "source")
        self._outbox = gauge("outbox_depth", "Events that wait to be delivered", "channel")
        self._last_frame = gauge(
            "last_frame_timestamp_seconds", "When the last frame that was scored was captured", "source"
        )
        self._kit = gauge("kit_info", "Always 1; the labels say which kit is in force", "kit", "backbone")
        self._stages = Histogram(
            "msc_edge_stage_seconds",
            "Where the time of a frame went: age (capture until scoring began), infer, search, total",
            ["stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        for kind in get_args(EventKind):  # a count that is not there at 0 does not show its first step
            self._events.labels(kind)

    def source(self, name: str) -> None:
        """A source that frames will come from; its counts begin at 0 and it is not up yet."""
        for verdict in get_args(Verdict):
            self._frames.labels(name, verdict)
        for each in (self._dropped, self._unreadable, self._restarts, self._up):
            each.labels(name)

    def decided(self, decision: Decision) -> None:
        """Count a frame, with what was dropped before it and where its time went."""
        frame, stages = decision.frame, decision.stages
        self._dropped.labels(frame.source).inc(frame.dropped)
        if decision.verdict is None:
            self._unreadable.labels(frame.source).inc()
        else:
            self._frames.labels(frame.source, decision.verdict).inc()
            self._last_frame.labels(frame.source).set(frame.time.timestamp())
        if stages:
            for name in ("age", "infer", "search", "total"):
                self._stages.labels(name).observe(getattr(stages, name) / 1000)

    def event(self, event: Event) -> None:
        """Count an event. Those of a source say whether it is up; those of a loss, how much was lost."""
        self._events.labels(event.kind).inc()
        if event.kind == "results_lost":
            self._results_lost.inc(event.count or 0)
        elif event.kind == "events_lost":
            self._events_lost.inc(event.count or 0)
        elif event.source and event.kind in ("source_up", "source_lost", "source_frozen", "source_ended"):
            self._up.labels(event.source).set(event.kind == "source_up")

    def restarted(self, source: str) -> None:
        """A live source was closed and is opened anew."""
        self._restarts.labels(source).inc()

    def outbox(self, depth: Mapping[str, int]) -> None:
        """Events that wait, for each channel."""
        for channel, count in depth.items():
            self._outbox.labels(channel).set(count)

    def kit(self, kit: str, backbone: str) -> None:
        """The kit that is in force from now on: SHA-256 of its manifest, and its backbone."""
        self._kit.clear()
        self._kit.labels(kit, backbone).set(1)

    def text(self) -> bytes:
        """All of it in the text format of Prometheus; its type is prometheus_client.CONTENT_TYPE_LATEST."""
        return generate_latest(self._registry)


class StatusServer:
    """Answers /metrics, /healthz and /readyz on threads of its own, from when it is made until `close`."""

    def __init__(
        self, host: str, port: int, metrics: Metrics, *, ready: Callable[[], list[str]], patience: float = 5.0
    ) -> None:
        """Open the port; 0 is any free one. UsageError when it cannot be opened.

        `ready` is called from several threads, and says what is amiss: nothing, and the stream is ready. A client may
        be silent for `patience` seconds, and take three times as long in all.
        """
        try:
            self._server = _Server(host, port, metrics, ready, patience)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
            raise UsageError(
                f"port {port} of {host} cannot be opened for /metrics: {_reason(error)} in [http] of the configuration"
            ) from error
        self.port: int = self._server.server_address[1]
        """The one that was opened."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="msc-edge http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the port and the connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.hang_up(0.0)


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return "this PC has no such address; correct `host`"
    if error.errno == errno.EADDRINUSE:
        return "another program has it; choose another `port`"
    return f"{error.strerror or error}; choose another `port`"


class _Server(ThreadingHTTPServer):
    # On Windows this option lets two programs have one port; elsewhere it lets a restart have it at once.
    allow_reuse_address = os.name != "nt"
    allow_reuse_port = False
    request_queue_size = 2 * _MOST_CONNECTIONS

    def __init__(self, host: str, port: int, metrics: Metrics, ready: Callable[[], list[str]], patience: float) -> None:
        self.metrics = metrics
        self.ready = ready
        self.patience = patience
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}  # connections, and time.monotonic() when they began
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        super().__init__(address, _Handler)  # pyright: ignore[reportArgumentType]  (an IPv6 address has four parts)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the name server who this PC is, which takes many seconds where there is none.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        with self._lock:
            full = len(self._since) >= _MOST_CONNECTIONS
            if not full:
                self._since[request] = time.monotonic()
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)  # pyright: ignore[reportArgumentType]

    def shutdown_request(self, request: socket.socket) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        # Time-outs of single reads do not suffice: a client that sends a byte now and then would keep its place.
        self.hang_up(3 * self.patience)

    def hang_up(self, after: float) -> None:
        """End the connections that are older than so many seconds."""
        with self._lock:
            for request, since in self._since.items():
                if time.monotonic() - since >= after:
                    with suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection broke off. That is the client's affair, and no news for the log."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version = "msc-edge"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.patience)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, self.server.metrics.text(), CONTENT_TYPE_LATEST)
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n")
        elif path == "/readyz":
            self._answer_ready()
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there are /metrics, /healthz and /readyz\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        # Methods that have no function above end here with 501, which would mean that nothing of ours knows them.
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._answer(status, f"{status.phrase}\n".encode())

    def _answer_ready(self) -> None:
        try:
            reasons = self.server.ready()
        except Exception as error:  # who asks must get an answer, and this one is not "ready"
            reasons = [f"readiness cannot be told: {error}"]
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
        """No access log: it would hide what matters."""
