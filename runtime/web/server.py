"""Running a server: the port, and the end on a signal."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from msc_edge.errors import UsageError
from msc_edge.runtime.web.accepting import Acceptor
from msc_edge.runtime.web.connection import Connection
from msc_edge.runtime.web.listening import is_loopback, listening_socket, reachable_hosts
from msc_edge.runtime.web.open_files import raise_open_files_limit
from msc_edge.runtime.web.refused_requests import LARGEST_HEAD
from msc_edge.runtime.web.settings import TOKEN_VARIABLE, WebSettings


@dataclass(frozen=True)
class Port:
    """An open port."""

    opened: socket.socket
    settings: WebSettings

    @property
    def hosts(self) -> frozenset[str] | None:
        """The host names that requests may use, for `Access`; None: any, because other PCs reach the port."""
        return frozenset({self.settings.host.lower()}) if self._is_local else None

    @property
    def addresses(self) -> list[str]:
        """The addresses of the server, as URLs that can be opened. With TLS names come first, as certificates have."""
        port = self.opened.getsockname()[1]
        hosts = reachable_hosts(self.opened, name_first=self.settings.tls_cert is not None)
        return [f"{self.settings.scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts]

    @property
    def _is_local(self) -> bool:
        return is_loopback(self.opened.getsockname()[0])

    def run(self, app: ASGIApp, *, on_start: Callable[[str], None], signals: bool = True) -> None:
        """Answer requests until SIGTERM or Ctrl-C; then, those that have started. On the main thread only.

        `on_start` receives the first address as soon as requests are answered. Without `signals`, none ends it.
        """
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
            h11_max_incomplete_event_size=LARGEST_HEAD,
            timeout_keep_alive=self.settings.timeout,
            timeout_graceful_shutdown=2 * self.settings.timeout,
            ssl_certfile=self.settings.tls_cert,
            ssl_keyfile=self.settings.tls_key,
        )
        raise_open_files_limit()
        _Server(config, self.opened, lambda: on_start(self.addresses[0]), signals=signals).run()


@contextmanager
def open_port(settings: WebSettings) -> Iterator[Port]:
    """Open the port of a server. UsageError where that fails, or other PCs could use it without a token."""
    with listening_socket(settings.host, settings.port) as opened:
        port = Port(opened, settings)
        if port.hosts is None and not (settings.token or settings.insecure):
            raise UsageError(
                f"other PCs reach {settings.host}, and no token is set: pass --token-file FILE or set "
                f"{TOKEN_VARIABLE}; --insecure lets everybody in"
            )
        settings.check_certificate()
        yield port


class _Server(uvicorn.Server):
    """uvicorn's server, with an `Acceptor` in place of that of asyncio.

    Stopping it by a signal is its regular end, and not passed on as a signal.
    """

    def __init__(
        self, config: uvicorn.Config, opened: socket.socket, on_start: Callable[[], None], *, signals: bool
    ) -> None:
        super().__init__(config)
        self._opened, self._on_start = opened, on_start
        self._signals = (signal.SIGINT, signal.SIGTERM) if signals else ()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        before = {number: signal.signal(number, self.handle_exit) for number in self._signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        config, state = self.config, self.server_state
        acceptor = Acceptor(
            self._opened, lambda: Connection(config, state, {}), connections=state.connections, tls=config.ssl
        )
        # uvicorn closes its servers, and waits for their end.
        self.servers = [acceptor]  # pyright: ignore[reportAttributeAccessIssue]
        self.started = True
        self._on_start()
