"""Cameras that send JPEG images by HTTP: a sequence in one response ("MJPEG"), or one image for each request.

FFmpeg fills a truncated image with pixels of the previous one, and a defect there would be missed. Therefore each image
is decoded like a file, and a truncated one is skipped.
"""

import base64
import http.client
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.images import decode_image

_MAX_REDIRECTS = 3
_MAX_BYTES = 64 << 20  # of one image
_MAX_SNAPSHOTS = 5.0  # requests a second to a camera that sends one image for each
_CHUNK = 1 << 16


class ConnectionBrokenError(Exception):
    """A connection to a camera ended; the message gives the reason."""


@dataclass
class JpegStream:
    """A connection to a camera that sends JPEG images."""

    url: str
    timeout: float
    response: http.client.HTTPResponse
    boundary: bytes | None
    """None: one image for each request."""

    @property
    def description(self) -> str:
        """For the log."""
        return "JPEG images by HTTP" if self.boundary else "one JPEG image for each request"

    def frames(self, *, skip: Callable[[], None], on_damaged: Callable[[str], None]) -> Iterator[np.ndarray]:
        """Yield the images, RGB uint8 (h, w, 3). Raises ConnectionBrokenError when the connection ends.

        An image that cannot be decoded is skipped: `skip` counts it, `on_damaged` takes the reason.
        """
        for data in _parts(self.response, self.boundary) if self.boundary else self._snapshots():
            try:
                yield decode_image(np.frombuffer(data, np.uint8))
            except UnreadableImageError as error:
                skip()
                on_damaged(f"an image was skipped: {error}")

    def _snapshots(self) -> Iterator[bytes]:
        response: http.client.HTTPResponse | None = self.response
        while response is not None:
            started = time.monotonic()
            with _as_broken():
                data = response.read(_MAX_BYTES)
            yield data
            time.sleep(max(0.0, started + 1 / _MAX_SNAPSHOTS - time.monotonic()))
            response = _get_following_redirects(self.url, self.timeout)
        raise ConnectionBrokenError("the camera no longer sends images")


def open_jpeg_stream(url: str, *, timeout: float) -> JpegStream | None:
    """Request a URL; None when it is no such camera, and FFmpeg may try it. `timeout`: seconds."""
    response = _get_following_redirects(url, timeout)
    if response is None:
        return None
    kind = response.headers.get_content_type()
    if kind == "multipart/x-mixed-replace":
        boundary = response.headers.get_boundary()
        if boundary:
            return JpegStream(url, timeout, response, boundary.strip('"').removeprefix("--").encode())
    elif kind in ("image/jpeg", "image/jpg", "image/png"):
        return JpegStream(url, timeout, response, None)
    response.close()
    return None


def _get_following_redirects(url: str, timeout: float) -> http.client.HTTPResponse | None:
    """GET; redirects are followed on the same host. None for any status other than 200."""
    for _ in range(_MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        try:
            response = _get(parts, timeout)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        if response.status == 200:
            return response
        response.close()
        location = response.headers.get("Location")
        if response.status not in (301, 302, 303, 307, 308) or not location:
            return None
        to = urlsplit(urljoin(url, location))
        if to.hostname != parts.hostname or to.scheme not in ("http", "https"):  # the password is for this host only
            return None
        userinfo = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        url = to._replace(netloc=f"{userinfo}{to.netloc.rpartition('@')[2]}").geturl()
    return None


def _get(parts: SplitResult, timeout: float) -> http.client.HTTPResponse:
    host = parts.hostname or ""
    if parts.scheme == "https":
        # Cameras have self-signed certificates. TLS encrypts the connection, and does not authenticate the camera.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    headers = {"User-Agent": "msc-edge", "Accept": "*/*"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    connection.request("GET", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", headers=headers)
    return connection.getresponse()


@contextmanager
def _as_broken() -> Iterator[None]:
    """Convert errors of reading to ConnectionBrokenError."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectionBrokenError("no image came in time") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectionBrokenError("the connection ended within an image") from error


def _parts(response: http.client.HTTPResponse, boundary: bytes) -> Iterator[bytes]:
    """The bodies of a multipart response. Raises ConnectionBrokenError when it ends."""
    buffer = b""
    delimiter = b"--" + boundary

    def more() -> bytes:
        with _as_broken():
            data = response.read1(_CHUNK)
        if not data:
            raise ConnectionBrokenError("the connection ended")
        return data

    while True:
        while (start := buffer.find(delimiter)) < 0 or (end := buffer.find(b"\r\n\r\n", start)) < 0:
            if len(buffer) > _MAX_BYTES:
                raise ConnectionBrokenError("the response is not multipart")
            buffer += more()
        head, buffer = buffer[start:end], buffer[end + 4 :]
        length = re.search(rb"(?i)content-length:\s*(\d{1,9})", head)
        if length:
            size = int(length[1])
            while len(buffer) < min(size, _MAX_BYTES):
                buffer += more()
            body, buffer = buffer[:size], buffer[size:]
        else:
            while (start := buffer.find(b"\r\n" + delimiter)) < 0:
                if len(buffer) > _MAX_BYTES:
                    raise ConnectionBrokenError("an image is larger than 64 MB")
                buffer += more()
            body, buffer = buffer[:start], buffer[start:]
        yield body
