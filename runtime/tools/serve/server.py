"""Running a server: the port, the kit, and the end on a signal."""

import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn

from msc_edge.errors import UsageError
from msc_edge.kit.manifest import Precision
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.listening import is_loopback, listening_socket
from msc_edge.runtime.tools.serve.app import Service, create_app
from msc_edge.runtime.tools.serve.connection import Connection
from msc_edge.runtime.tools.serve.settings import TOKEN_VARIABLE, ServeSettings


def serve(
    kit: str | Path,
    settings: ServeSettings | None = None,
    *,
    threshold: float | None = None,
    false_alarm_rate: float | None = None,
    precision: Precision | None = None,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Score images over HTTP until SIGTERM or Ctrl-C: the whole of `msc-edge serve`.

    `threshold`, `false_alarm_rate`: see `Detector.with_limits`. `precision`: see `Detector.load`. `on_start` receives
    the address as soon as requests are answered. On a signal, no new connections are accepted, and the requests that
    have started are answered. Call this on the main thread.

    Raises UsageError when the port cannot be opened, or other PCs could use it without a token; KitError.
    """
    settings = settings or ServeSettings()
    # The port is opened first: loading a kit takes a second, and a wrong port none.
    with closing(listening_socket(settings.host, settings.port)) as opened:
        local = is_loopback(opened.getsockname()[0])
        if not (local or settings.token or settings.insecure):
            raise UsageError(
                f"other PCs reach {settings.host}, and no token is set: pass --token-file FILE or set "
                f"{TOKEN_VARIABLE}; --insecure lets everybody in"
            )
        _check_certificate(settings)
        detector = Detector.load(kit, threads=1, precision=precision).with_limits(
            threshold=threshold, false_alarm_rate=false_alarm_rate
        )
        service = Service.of(detector, settings)
        app = create_app(service, hosts=frozenset({settings.host.lower()}) if local else None)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",  # warnings are about clients: any of them could fill the log
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.timeout,
            timeout_graceful_shutdown=2 * settings.timeout,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        try:
            _Server(config, lambda: on_start(_address(opened, settings))).run([opened])
        finally:
            service.pool.close()


class _Server(uvicorn.Server):
    """uvicorn's server: stopping it by a signal is its regular end, and not passed on as a signal."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def _check_certificate(settings: ServeSettings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")  # no question at a terminal
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: cannot be used: {reason or error}; "
            "expected a certificate and its key without password, in PEM format"
        ) from error


def _address(opened: socket.socket, settings: ServeSettings) -> str:
    host, port = opened.getsockname()[:2]
    return f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
