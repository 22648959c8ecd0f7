"""Cameras that send images by HTTP: a sequence in one answer ("MJPEG"), or one image for each request.

FFmpeg fills a truncated image with pixels of the previous one, and a defect there would be missed. Therefore each image
is decoded like a file, and a truncated one is skipped.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import requests
import urllib3

from msc_edge.errors import UnreadableImageError
from msc_edge.images import decode_image
from msc_edge.runtime.stream.http_client import CertificateError, HttpClient, HttpError, login_of, without_login
from msc_edge.runtime.stream.sources.image_splitter import FoundImage, ImageSplitter, UnsplittableError
from msc_edge.runtime.stream.sources.messages import ConnectionBrokenError

_MAX_SNAPSHOTS = 5.0  # requests a second to a camera that sends one image for each
_CHUNK = 1 << 16
_PATIENCE = 2  # times the timeout: the longest time from one image to the end of the next
_HEAD = 512  # bytes that identify a body

_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_TS_PACKET = 188
_CONTAINERS = re.compile(
    rb"FLV\x01|\x1aE\xdf\xa3|OggS|\x30\x26\xb2\x75|RIFF....AVI |....(?:ftyp|styp|moov|moof|sidx|mdat)", re.DOTALL
)
Body = Literal["images", "video", "page"]


@dataclass
class ImageStream:
    """A connection to a camera that sends images."""

    client: HttpClient
    url: str
    timeout: float
    """Seconds without data after which the connection counts as broken."""
    response: requests.Response
    head: bytes
    """The first bytes of the body, which have been read already."""

    @property
    def description(self) -> str:
        """For the log."""
        kind = _content_type(self.response) or "no content type"
        return f"images by HTTP ({kind})"

    def frames(self, *, skip: Callable[[], None], on_damaged: Callable[[str], None]) -> Iterator[np.ndarray]:
        """Yield the images, RGB uint8 (h, w, 3). Raises ConnectionBrokenError when the connection ends.

        An image that cannot be decoded is skipped: `skip` counts it, `on_damaged` takes the reason.
        """
        with closing(self.client):
            while True:
                started, count = time.monotonic(), 0
                for found in self._images():
                    count += 1
                    try:
                        image = _decoded(found)
                    except UnreadableImageError as error:
                        skip()
                        on_damaged(f"an image was skipped: {error}")
                    else:
                        yield image
                if count == 0:
                    raise ConnectionBrokenError(f"the answer contains no JPEG or PNG image ({self.description})")
                if count > 1:
                    raise ConnectionBrokenError("the connection ended")
                # One image for each request.
                time.sleep(max(0.0, started + 1 / _MAX_SNAPSHOTS - time.monotonic()))
                self.response, self.head = _get(self.client, self.url), b""

    def _images(self) -> Iterator[FoundImage]:
        """The images of one answer, whole or cut."""
        splitter = ImageSplitter(_boundary(self.response))
        received = _received(self.response)
        deadline = time.monotonic() + _PATIENCE * self.timeout
        data: bytes | None = self.head
        problem = ""
        while data is not None:
            try:
                for image in splitter.feed(data):
                    yield image
                    deadline = time.monotonic() + _PATIENCE * self.timeout
                if time.monotonic() > deadline:
                    problem = f"no whole image came within {_PATIENCE * self.timeout:.0f} s"
                    break
                data = next(received, None)
            except UnsplittableError as error:
                problem = str(error)
                break
            except ConnectionBrokenError as error:
                problem = str(error)
                break
        if (cut := splitter.finish()) is not None:
            yield cut
        if problem:
            self.response.close()
            raise ConnectionBrokenError(problem)


def open_image_stream(
    url: str, *, timeout: float, ca_file: Path | None = None, insecure: bool = False
) -> ImageStream | None:
    """Request a URL. None when its body is a video, which FFmpeg reads.

    `timeout`: seconds; for `ca_file` and `insecure` see HttpClient. Raises ConnectionBrokenError for any other answer,
    and for none.
    """
    parts = urlsplit(url)
    try:
        client = HttpClient(timeout=timeout, login=login_of(parts), ca_file=ca_file, insecure=insecure)
    except HttpError as error:
        raise ConnectionBrokenError(str(error)) from None
    place = without_login(parts)
    response = _get(client, place)
    head = _head(response, timeout)
    kind = body_kind(head, _content_type(response))
    if kind == "images":
        return ImageStream(client, place, timeout, response, head)
    response.close()
    client.close()
    if kind == "page":
        raise ConnectionBrokenError(
            f"the answer is a page ({_content_type(response) or 'text'}), not images; check path, user and password"
        )
    return None


def body_kind(head: bytes, content_type: str) -> Body:
    """What a body is, by its first bytes, and by its content type where these do not tell."""
    text = head.lstrip(b"\xef\xbb\xbf\r\n\t ")
    if any(start in head for start in _IMAGES) or text.startswith(b"--") or text[:8].lower() == b"content-":
        return "images"
    if text.startswith(b"#EXTM3U") or _CONTAINERS.match(head) or _is_transport_stream(head):
        return "video"
    if text.startswith((b"<", b"{")) or content_type in ("text/html", "application/json"):
        return "page"
    if content_type.startswith("video/") and not re.search("jpe?g", content_type):
        return "video"
    return "images"


def _decoded(found: FoundImage) -> np.ndarray:
    if not found.is_whole:  # decoders accept some of them
        raise UnreadableImageError("it is truncated")
    return decode_image(np.frombuffer(found.data, np.uint8))


def _is_transport_stream(head: bytes) -> bool:
    """Whether each packet of MPEG-TS begins with its sync byte."""
    return len(head) > _TS_PACKET and set(head[::_TS_PACKET]) == {ord("G")}


def _get(client: HttpClient, url: str) -> requests.Response:
    try:
        return client.get(url)
    except CertificateError as error:
        raise ConnectionBrokenError(f"{error}; name its certificate as `ca_file`") from None
    except HttpError as error:
        raise ConnectionBrokenError(str(error)) from None


def _head(response: requests.Response, timeout: float) -> bytes:
    """The first bytes of a body: enough to identify it, or all that come in time."""
    head, deadline = b"", time.monotonic() + timeout
    for data in _received(response):
        head += data
        if len(head) >= _HEAD or any(start in head for start in _IMAGES) or time.monotonic() > deadline:
            break
    return head


def _received(response: requests.Response) -> Iterator[bytes]:
    """The body, as it arrives. One that is shorter than declared ends; ConnectionBrokenError when nothing comes."""
    while True:
        try:
            data = response.raw.read1(_CHUNK, decode_content=True)
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError):
            raise ConnectionBrokenError("no image came in time") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return
        if not data:
            return
        yield data


def _content_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _boundary(response: requests.Response) -> str | None:
    found = re.search(r'(?i)boundary\s*=\s*("[^"]*"|[^;]*)', response.headers.get("Content-Type", ""))
    return found[1] if found else None
