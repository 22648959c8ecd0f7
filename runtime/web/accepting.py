"""Accepting connections: how many at once, how long a TLS handshake lasts, and what happens without descriptors."""

import asyncio
import errno
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable, Sized
from contextlib import suppress

from msc_edge.runtime.web.connection import MOST
from msc_edge.runtime.web.open_files import open_files_limit

MOST_OPEN = MOST + 64
"""Sockets at once: the connections, those that receive a 503, and those that still negotiate TLS."""
_RETRY = 0.5  # seconds until connections are accepted again after an error of the system
_SILENT = 10.0  # seconds between two log lines about such errors
_LOG = logging.getLogger("msc_edge")


class Acceptor:
    """Accepts the connections of a listening socket until `close`.

    It replaces the server of asyncio, which counts no connection before the end of its TLS handshake and waits a minute
    for it. Without free file descriptors asyncio writes a traceback for each attempt to accept a connection.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        connections: Sized,
        tls: ssl.SSLContext | None,
        handshake: float = 5.0,
    ) -> None:
        """Start to accept. The acceptor closes `listening`.

        `connections`: the open ones, without those that still negotiate TLS, which have `handshake` seconds.
        """
        self._listening, self._protocol, self._connections, self._tls = listening, protocol, connections, tls
        self._handshake = handshake if tls else None
        self._opening: dict[asyncio.Task[None], None] = {}  # those that negotiate TLS, the oldest first
        self._reported = -math.inf  # when an error of the system was logged
        listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        with self._listening:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(self._listening)
                except ConnectionAbortedError:  # by the client, before it was accepted
                    continue
                except OSError as error:
                    self._report(error)
                    await asyncio.sleep(_RETRY)
                    continue
                self._open(accepted)
                del accepted  # else the last connection would stay open until the next one
                await asyncio.sleep(0)  # many connections at once must not keep the others from their turn

    def _open(self, accepted: socket.socket) -> None:
        if len(self._connections) + len(self._opening) >= MOST_OPEN:
            if not (self._tls and self._opening):
                accepted.close()
                return
            # The oldest handshake ends: it had the most time.
            self._opening.pop(oldest := next(iter(self._opening)))
            oldest.cancel()
        task = asyncio.create_task(self._negotiate(accepted))
        self._opening[task] = None
        task.add_done_callback(lambda done: self._opening.pop(done, None))

    async def _negotiate(self, accepted: socket.socket) -> None:
        with suppress(OSError):  # of the client; it could fill the log
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake,
                ssl_shutdown_timeout=self._handshake,
            )

    def _report(self, error: OSError) -> None:
        if time.monotonic() - self._reported < _SILENT:
            return
        self._reported = time.monotonic()
        cause, remedy = error.strerror or str(error), "close other programs, or restart the server"
        if error.errno == errno.EMFILE:
            cause = f"all {open_files_limit()} files and connections that this process may open are in use"
            remedy = "raise the limit (ulimit -n; LimitNOFILE= of systemd)"
        _LOG.error("no connection can be accepted: %s; those that wait are accepted later; %s", cause, remedy)

    def close(self) -> None:
        """Accept no more connections, and end the handshakes."""
        self._accepting.cancel()
        for task in self._opening:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the port is closed."""
        await asyncio.wait([self._accepting, *self._opening])
