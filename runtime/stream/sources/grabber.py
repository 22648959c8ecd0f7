"""The process that holds a camera: it reads frames as they come, keeps the latest, and gives it when asked.

A driver or a decoder that hangs or crashes takes this process with it, and not the stream. The frame travels through
one piece of shared memory, which this side writes only between a request and its answer, so it is never half-written.
The pipe between the two carries small messages; the process ends when its parent does.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from msc_edge.runtime.stream.sources.address import Address, camera_number
from msc_edge.runtime.stream.sources.broken import BrokenError

Array = np.ndarray
StatusKind = Literal["open", "broken", "damaged"]
_LASTED = 10.0  # seconds after which a connection that breaks is tried again at once


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to open, and how."""

    address: Address
    open_timeout: float
    read_timeout: float
    width: int | None = None
    height: int | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """The source is open (with what was really set), broken (with why), or gave a frame that cannot be decoded."""

    kind: StatusKind
    words: str
    connection: int
    """Counts the connections of this process. Frames of one that is broken may still be on their way."""


@dataclass(frozen=True, slots=True)
class AllocateMemory:
    """The shared memory must hold so many bytes; answered by the name of one that does."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Grabbed:
    """A frame lies in the shared memory: uint8 (height, width, 3), RGB."""

    index: int
    """Counts the frames that this process was given, damaged ones too."""
    connection: int
    captured: float
    """`time.monotonic()`, which all processes of a machine share."""
    time: float
    """`time.time()`."""
    height: int
    width: int


NEXT = b"next"  # a frame that was not given yet, please


class _Latest:
    """The latest frame, and a wait for a newer one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._image: Array | None = None
        self._count = -1
        self._when = (0.0, 0.0)
        self.connection = 0

    def put(self, image: Array) -> None:
        with self._changed:
            self._count += 1
            self._when = (time.monotonic(), time.time())
            self._image = image
            self._changed.notify()

    def skip(self) -> None:
        """Count a frame that cannot be shown."""
        with self._changed:
            self._count += 1

    def take(self, timeout: float) -> tuple[Array, Callable[[int, int], Grabbed]] | None:
        """A frame that was not taken yet, BGR, and how it is announced once its height and width are known."""
        with self._changed:
            if self._image is None:
                self._changed.wait(timeout)
            image, self._image = self._image, None
            if image is None:
                return None
            count, connection, (captured, moment) = self._count, self.connection, self._when
            return image, lambda height, width: Grabbed(count, connection, captured, moment, height, width)


def grab(connection: Connection, wanted: Wanted) -> None:
    """The whole life of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent ends us when it is through
    _become_quiet(wanted)
    latest, sending = _Latest(), threading.Lock()

    def tell(kind: StatusKind, words: str) -> None:
        with sending, contextlib.suppress(OSError):
            connection.send(StatusMessage(kind, words, latest.connection))

    threading.Thread(target=_read_for_ever, args=(wanted, latest, tell), daemon=True).start()
    with contextlib.suppress(OSError, EOFError):  # the parent has gone, or wants us gone
        _serve(connection, latest, sending)
    os._exit(0)  # not held up by a driver that hangs


def _become_quiet(wanted: Wanted) -> None:
    # Before cv2 is imported. FFmpeg's own log would print addresses with their passwords.
    milliseconds = int(1000 * wanted.read_timeout)
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    os.environ["OPENCV_VIDEOIO_DEBUG"] = "0"
    if wanted.address.given.lower().startswith("rtsp"):
        # TCP: a lost packet is sent again, and does not smear the image. `timeout` is in microseconds; `stimeout`,
        # of which the internet speaks, is ignored since FFmpeg 5.
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"rtsp_transport;tcp|timeout;{1000 * milliseconds}"
    else:
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"rw_timeout;{1000 * milliseconds}"


def _serve(connection: Connection, latest: _Latest, sending: threading.Lock) -> None:
    import cv2  # noqa: PLC0415  (after _become_quiet)

    memory: SharedMemory | None = None
    while _parent_lives():
        if not connection.poll(1.0):
            continue
        connection.recv_bytes()
        while (taken := latest.take(timeout=1.0)) is None:
            if connection.poll(0) or not _parent_lives():  # nothing is due: the other end was closed
                return
        image, announced = taken
        height, width = image.shape[:2]
        if memory is None or memory.size < image.nbytes:
            with sending:
                connection.send(AllocateMemory(image.nbytes))
            if memory is not None:
                memory.close()
            memory = SharedMemory(connection.recv())
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=np.ndarray((height, width, 3), np.uint8, buffer=memory.buf))
        with sending:
            connection.send(announced(height, width))


def _parent_lives() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def _read_for_ever(wanted: Wanted, latest: _Latest, tell: Callable[[StatusKind, str], None]) -> None:
    """Connect, read until it breaks, and again; where one failed, or broke soon, after a pause of up to 3 seconds."""
    from tenacity import Retrying, retry_if_result, wait_random_exponential  # noqa: PLC0415

    def connection() -> bool:
        """Whether it lasted."""
        latest.connection += 1
        begun = time.monotonic()
        frames = _frames(wanted, latest.skip, tell)
        why = ""
        try:
            for image in frames:
                latest.put(image)
        except BrokenError as error:
            why = str(error)
        tell("broken", why or _why_not(wanted, seconds=time.monotonic() - begun))
        return time.monotonic() - begun > _LASTED

    pause = wait_random_exponential(multiplier=0.2, max=3)
    while True:
        Retrying(wait=pause, retry=retry_if_result(lambda lasted: not lasted))(connection)


def _frames(wanted: Wanted, skip: Callable[[], None], tell: Callable[[StatusKind, str], None]) -> Iterator[Array]:
    """The frames of one connection, BGR. Raises BrokenError when it breaks; ends at once where none was made."""
    import cv2  # noqa: PLC0415  (after _become_quiet)

    from msc_edge.runtime.stream.sources.mjpeg import open_jpeg_stream  # noqa: PLC0415

    if wanted.address.given.lower().startswith(("http://", "https://")):
        images = open_jpeg_stream(wanted.address.given, timeout=wanted.read_timeout)
        if images is not None:
            tell("open", images.words)
            yield from images.frames(skip=skip, damaged=lambda words: tell("damaged", words))
            return
    capture = _opened(wanted)
    try:
        if not capture.isOpened():
            return
        whole, image = capture.read()
        if not whole:
            return
        tell("open", _read_back(capture, wanted.address))
        while whole:
            yield _as_bgr(image, cv2)
            whole, image = capture.read()
    finally:
        capture.release()
    raise BrokenError("the connection ended, or no frame came in time")


def _as_bgr(image: Array, cv2: Any) -> Array:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 or image.shape[2] == 1 else image


def _opened(wanted: Wanted) -> Any:
    import cv2  # noqa: PLC0415

    if wanted.address.kind == "webcam":
        return _webcam(wanted, cv2)
    # Without CAP_FFMPEG named outright the time-outs are ignored.
    return cv2.VideoCapture(
        wanted.address.given,
        cv2.CAP_FFMPEG,
        [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * wanted.open_timeout)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * wanted.read_timeout)),
        ],
    )


def _webcam(wanted: Wanted, cv2: Any) -> Any:
    number = camera_number(wanted.address.given)
    ways = [cv2.CAP_DSHOW, cv2.CAP_MSMF] if os.name == "nt" else [cv2.CAP_V4L2, cv2.CAP_ANY]
    capture = cv2.VideoCapture()
    for way in ways:
        if capture.open(number, way):
            break
    if capture.isOpened():
        # MJPG before the size: raw frames of 720p come at 10 a second from common webcams.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for what, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, wanted.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, wanted.height),
            (cv2.CAP_PROP_FPS, wanted.fps),
        ):
            if value:
                capture.set(what, value)
    return capture


def _read_back(capture: Any, address: Address) -> str:
    """What was really set, which is seldom all that was asked for."""
    import cv2  # noqa: PLC0415

    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    fourcc = "".join(c if c.isprintable() else "?" for c in code.to_bytes(4, "little").decode("latin-1")).strip()
    size = f"{capture.get(cv2.CAP_PROP_FRAME_WIDTH):.0f}x{capture.get(cv2.CAP_PROP_FRAME_HEIGHT):.0f}"
    rate = capture.get(cv2.CAP_PROP_FPS)
    way = f" by {capture.getBackendName()}" if address.kind == "webcam" else ""
    return f"{size}, {fourcc}{f', {rate:.4g} frames a second' if 0 < rate < 1000 else ''}{way}"


def _why_not(wanted: Wanted, *, seconds: float) -> str:
    """OpenCV does not say why it could not open; whether the host answers, and how long it took, tells most of it."""
    address = wanted.address
    if address.kind == "webcam":
        return "the camera cannot be opened; is it plugged in, free, and may this user read it (group video)?"
    parts = urlsplit(address.shown.replace("***@", ""))
    try:
        port = parts.port or {"rtsp": 554, "http": 80, "https": 443, "rtmp": 1935}.get(parts.scheme)
        if port is None or not parts.hostname:
            return "cannot be opened"
        with socket.create_connection((parts.hostname, port), timeout=2):
            if seconds >= min(wanted.open_timeout, wanted.read_timeout) - 0.1:
                return f"the host takes the connection and does not answer in {seconds:.0f} s"
            return "the host answers, but gives no video that can be decoded; check path, user, password and codec"
    except ValueError:
        return "cannot be opened; its port is not a number"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
