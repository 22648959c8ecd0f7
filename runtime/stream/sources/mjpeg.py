"""Cameras that give JPEG images by HTTP: one after the other in one answer ("MJPEG"), or one for each request.

Read here and not by FFmpeg, which fills up an image that was cut off with the pixels of the one before: a part that
nobody has seen would be scored. Each image is decoded as a file is, and one that is not whole is none.
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

import cv2
import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.images import decode_image
from msc_edge.runtime.stream.sources.broken import BrokenError

_MOST_REDIRECTS = 3
_LARGEST = 64 << 20  # bytes of one image
_SNAPSHOTS = 5.0  # requests a second, at most, of a camera that gives one image for each
_CHUNK = 1 << 16


@dataclass
class JpegStream:
    """A connection that gives JPEG images."""

    url: str
    timeout: float
    answer: http.client.HTTPResponse
    boundary: bytes | None
    """None: one image for each request."""

    @property
    def words(self) -> str:
        """What was found."""
        return "JPEG images by HTTP" if self.boundary else "one JPEG image for each request"

    def frames(self, *, skip: Callable[[], None], damaged: Callable[[str], None]) -> Iterator[np.ndarray]:
        """The images, BGR uint8 (h, w, 3). Raises BrokenError when the connection ends.

        One that cannot be decoded is passed over: `skip` counts it, `damaged` is told why.
        """
        for data in _parts(self.answer, self.boundary) if self.boundary else self._snapshots():
            try:
                yield cv2.cvtColor(decode_image(np.frombuffer(data, np.uint8)), cv2.COLOR_RGB2BGR)
            except UnreadableImageError as error:
                skip()
                damaged(f"an image was passed over: {error}")

    def _snapshots(self) -> Iterator[bytes]:
        answer: http.client.HTTPResponse | None = self.answer
        while answer is not None:
            begun = time.monotonic()
            with _as_broken():
                data = answer.read(_LARGEST)
            yield data
            time.sleep(max(0.0, begun + 1 / _SNAPSHOTS - time.monotonic()))
            answer = _ask(self.url, self.timeout)
        raise BrokenError("the camera gives no image any more")


def open_jpeg_stream(url: str, *, timeout: float) -> JpegStream | None:
    """Ask for a URL; None when what answers is no such camera, and FFmpeg may try it."""
    answer = _ask(url, timeout)
    if answer is None:
        return None
    kind = answer.headers.get_content_type()
    if kind == "multipart/x-mixed-replace":
        boundary = answer.headers.get_boundary()
        if boundary:
            return JpegStream(url, timeout, answer, boundary.strip('"').removeprefix("--").encode())
    elif kind in ("image/jpeg", "image/jpg", "image/png"):
        return JpegStream(url, timeout, answer, None)
    answer.close()
    return None


def _ask(url: str, timeout: float) -> http.client.HTTPResponse | None:
    """GET; redirects are followed on the same host. None for any answer but 200."""
    for _ in range(_MOST_REDIRECTS + 1):
        parts = urlsplit(url)
        try:
            answer = _get(parts, timeout)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        if answer.status == 200:
            return answer
        answer.close()
        place = answer.headers.get("Location")
        if answer.status not in (301, 302, 303, 307, 308) or not place:
            return None
        to = urlsplit(urljoin(url, place))
        if to.hostname != parts.hostname or to.scheme not in ("http", "https"):  # the password is for this host alone
            return None
        userinfo = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        url = to._replace(netloc=f"{userinfo}{to.netloc.rpartition('@')[2]}").geturl()
    return None


def _get(parts: SplitResult, timeout: float) -> http.client.HTTPResponse:
    host = parts.hostname or ""
    if parts.scheme == "https":
        # Cameras have certificates of their own making. What is protected is the way, not the name.
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
    """StateChange what reading raises into a BrokenError."""
    try:
        yield
    except TimeoutError as error:
        raise BrokenError("no image came in time") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenError("the connection ended in mid-image") from error


def _parts(answer: http.client.HTTPResponse, boundary: bytes) -> Iterator[bytes]:
    """The bodies of a multipart answer. Raises BrokenError when it ends."""
    held = b""
    mark = b"--" + boundary

    def more() -> bytes:
        with _as_broken():
            data = answer.read1(_CHUNK)
        if not data:
            raise BrokenError("the connection ended")
        return data

    while True:
        while (start := held.find(mark)) < 0 or (end := held.find(b"\r\n\r\n", start)) < 0:
            if len(held) > _LARGEST:
                raise BrokenError("what comes is no multipart answer")
            held += more()
        head, held = held[start:end], held[end + 4 :]
        length = re.search(rb"(?i)content-length:\s*(\d{1,9})", head)
        if length:
            size = int(length[1])
            while len(held) < min(size, _LARGEST):
                held += more()
            body, held = held[:size], held[size:]
        else:
            while (start := held.find(b"\r\n" + mark)) < 0:
                if len(held) > _LARGEST:
                    raise BrokenError("an image is larger than 64 MB")
                held += more()
            body, held = held[:start], held[start:]
        yield body
