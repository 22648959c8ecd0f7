"""Bodies of requests: read in bounded time and memory."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request

from msc_edge.runtime.tools.serve.settings import ServeSettings

RETRY_AFTER = {"Retry-After": "1"}


class Bodies:
    """Reads the bodies of requests, and counts the bytes of those in memory. Used by the event loop only."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body of a request; it counts until the context ends.

        Raises HTTPException: 408 for a slow client, 413 for a large body, 503 where others fill the memory. Raises
        starlette's ClientDisconnect where the client disconnects.
        """
        self._check_length(request.headers)
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(self._settings.timeout):
                    async for chunk in request.stream():
                        self._count(body, chunk)
            except TimeoutError:
                raise HTTPException(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the body did not arrive within {self._settings.timeout} seconds; send it faster, or raise "
                    "--timeout",
                ) from None
            yield body
        finally:
            self._bytes -= len(body)

    def _check_length(self, headers: Mapping[str, str]) -> None:
        stated = headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > self._settings.max_bytes:
            raise self._too_large()

    def _count(self, body: bytearray, chunk: bytes) -> None:
        if len(body) + len(chunk) > self._settings.max_bytes:
            raise self._too_large()
        if self._bytes + len(chunk) > self._settings.max_bytes_of_all:
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many large bodies at once; try again later", RETRY_AFTER
            )
        body += chunk
        self._bytes += len(chunk)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is larger than {self._settings.max_bytes} bytes; compress the image, or raise --max-bytes",
        )
