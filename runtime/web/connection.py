"""uvicorn's connection, with a limit of connections and of time. uvicorn itself waits for a request without end."""

import asyncio
import sys
from http import HTTPStatus

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from msc_edge.runtime.web.error_response import error_json
from msc_edge.runtime.web.refused_requests import refusal

MOST = 256
"""Connections at once; others are refused with 503."""
_LINGER = 1.0  # seconds until a refused connection is closed: the client reads the response meanwhile


class Connection(H11Protocol):
    """A connection that ends when the client is too slow: with the head of a request, or in reading a response.

    `timeout_keep_alive` of uvicorn's configuration is the limit, in seconds. `bodies.Bodies` limits the time of a body.
    """

    _head: asyncio.TimerHandle | None = None
    _written: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        if len(self.connections) > MOST:
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST} connections are open, as many as this server takes; close idle ones, or try again later",
                "Retry-After: 1\r\n",
            )
        else:
            self._head = self.loop.call_later(self.timeout_keep_alive, transport.abort)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._refused:
            return
        if self._head is None and self._is_idle():
            self._head = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)
        super().data_received(data)
        if not self._is_idle():
            self._head = _cancelled(self._head)

    @property
    def has_whole_request(self) -> bool:
        """Whether a request was received to its end and has no response yet."""
        return not self._is_idle() and not self.cycle.more_body

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._written = _cancelled(self._written)
        self._written = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._written = _cancelled(self._written)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for too long, also when it still has something to send."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._head, self._written = _cancelled(self._head), _cancelled(self._written)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer a request that h11 refuses, in the form of all errors."""
        if self._is_idle() or not self.cycle.response_started:
            self._refuse(*refusal(sys.exception()))  # uvicorn calls this where it handles the error of h11
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str, headers: str = "") -> None:
        body = error_json(message)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
        )
        self._refused = True
        self._head = _cancelled(self._head)
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._head = self.loop.call_later(_LINGER, self.transport.abort)

    def shutdown(self) -> None:
        """See uvicorn."""
        if self._refused:
            self.transport.abort()
        else:
            super().shutdown()


class _Flow(FlowControl):
    """Reads no further requests before the response to the current one.

    uvicorn's own resumes with each call of `receive`: a client that sends requests without waiting fills the memory.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__(transport)
        self._connection = connection

    def resume_reading(self) -> None:
        """See uvicorn."""
        if not self._connection.has_whole_request:
            super().resume_reading()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer:
        timer.cancel()
