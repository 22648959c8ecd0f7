"""Responses to requests whose body was not read to its end, such as 401 and 413."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LEAST = 1.0  # seconds


class EarlyResponses:
    """ASGI middleware: after an early response, discards the rest of the body before the connection is closed.

    A connection that is closed while the client still sends is reset, and the client may then lose the response. So
    the response is sent first, and what the client has on its way is read and dropped, for a limited time.
    """

    def __init__(self, app: ASGIApp, *, timeout: float) -> None:
        """`timeout`: seconds that a client has to send a request."""
        self._app = app
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        headers = Headers(scope=scope)
        complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        # Such a client sends nothing before it is asked to, by the first call of `receive`.
        waits = headers.get("expect", "").lower() == "100-continue"
        deadline = asyncio.get_running_loop().time() + self._timeout

        async def receiving() -> Message:
            nonlocal complete, waits
            waits = False
            message = await receive()
            complete = complete or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def drain() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(max(deadline, asyncio.get_running_loop().time() + _LEAST)):
                    while not complete and not waits:
                        await receiving()

        async def sending(message: Message) -> None:
            if complete:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message["headers"], (b"connection", b"close")]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})  # complete for the client, by its Content-Length
                await drain()
                await send({"type": "http.response.body", "body": b""})

        await self._app(scope, receiving, sending)
