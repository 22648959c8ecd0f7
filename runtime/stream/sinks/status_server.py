"""The HTTP server of a stream: /metrics for Prometheus, /healthz and /readyz for a supervisor."""

from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.http_server import BoundedHandler, BoundedServer
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.web.listening import why_not_opened


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
        self._server.start("msc-edge http")

    def close(self) -> None:
        """Close the port and all connections."""
        self._server.stop()


class _Server(BoundedServer):
    def __init__(
        self, host: str, port: int, metrics: Metrics, not_ready: Callable[[], list[str]], timeout: float
    ) -> None:
        self.metrics = metrics
        self.not_ready = not_ready
        super().__init__(host, port, _Handler, timeout=timeout)


class _Handler(BoundedHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    methods = "GET, HEAD"

    def do_GET(self) -> None:  # noqa: N802
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self.respond(HTTPStatus.OK, self.server.metrics.as_text(), CONTENT_TYPE_LATEST)
        elif path == "/healthz":
            self.respond(HTTPStatus.OK, b"ok\n")
        elif path == "/readyz":
            self._respond_ready()
        else:
            self.respond(HTTPStatus.NOT_FOUND, b"available: /metrics, /healthz and /readyz\n")

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def _respond_ready(self) -> None:
        try:
            reasons = self.server.not_ready()
        except Exception as error:  # the client needs an answer, and this one is not "ready"
            reasons = [f"readiness is unknown: {error}"]
        if reasons:
            self.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons).encode(errors="replace")
            )
        else:
            self.respond(HTTPStatus.OK, b"ready\n")
