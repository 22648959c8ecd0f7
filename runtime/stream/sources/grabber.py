"""The process that holds a camera. It reads frames as they arrive, keeps the latest, and sends it on request.

A driver or decoder that hangs or crashes affects this process only, not the stream. The frame travels through one
piece of shared memory. This process writes it only between a request and its answer, so a frame is never half-written.
The pipe between the two processes carries small messages. This process ends when its parent ends.

Nothing here imports cv2: its environment variables must be set first. See `run_grabber`.
"""

import contextlib
import multiprocessing
import os
import signal
import ssl
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from msc_edge.runtime.stream.sources.frame_memory import FrameMemory
from msc_edge.runtime.stream.sources.messages import (
    AllocateMemory,
    CaptureSettings,
    ColourOrder,
    ConnectionBrokenError,
    GrabbedFrame,
    OnStatus,
    StatusKind,
    StatusMessage,
)

_LASTING = 10.0  # seconds after which a connection that breaks is opened again without a pause


@dataclass(frozen=True, slots=True)
class _Captured:
    image: np.ndarray
    order: ColourOrder
    index: int
    connection: int
    captured: float
    time: float
    damaged: int


class _LatestFrame:
    """The latest frame, and a wait for a newer one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: _Captured | None = None
        self._index = -1
        self._damaged = 0
        self.connection = 0

    def put(self, image: np.ndarray, order: ColourOrder) -> None:
        with self._changed:
            self._index += 1
            self._frame = _Captured(
                image, order, self._index, self.connection, time.monotonic(), time.time(), self._damaged
            )
            self._changed.notify()

    def skip(self) -> None:
        """Count a damaged frame."""
        with self._changed:
            self._index += 1
            self._damaged += 1

    def take(self, timeout: float) -> _Captured | None:
        """A frame that was not taken before; None when there is none in `timeout` seconds."""
        with self._changed:
            if self._frame is None:
                self._changed.wait(timeout)
            frame, self._frame = self._frame, None
            return frame


def run_grabber(connection: Connection, settings: CaptureSettings) -> None:
    """Main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too; the parent ends it afterwards
    configure_opencv(settings)
    latest, sending = _LatestFrame(), threading.Lock()

    def on_status(kind: StatusKind, message: str) -> None:
        with sending, contextlib.suppress(OSError):
            connection.send(StatusMessage(kind, message, latest.connection))

    threading.Thread(target=_capture_forever, args=(settings, latest, on_status), daemon=True).start()
    with contextlib.suppress(OSError, EOFError):  # the parent has gone, or has closed the pipe
        _serve(connection, latest, sending)
    os._exit(0)  # do not wait for a driver that hangs


def configure_opencv(settings: CaptureSettings) -> None:
    """Set the environment variables of OpenCV and FFmpeg for one source, before cv2 is imported."""
    # The log of FFmpeg would contain addresses with their passwords.
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    os.environ["OPENCV_VIDEOIO_DEBUG"] = "0"
    microseconds = 1000 * int(1000 * settings.read_timeout)
    # TCP sends a lost packet again; UDP would smear the image. FFmpeg 5 and newer ignore `stimeout`.
    options = f"{'rtsp_transport;tcp|timeout' if settings.address.is_rtsp else 'rw_timeout'};{microseconds}"
    if settings.address.uses_tls and not settings.insecure:  # FFmpeg accepts any certificate by default
        options += f"|tls_verify;1|ca_file;{settings.ca_file or _system_authorities()}"
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options


def _system_authorities() -> str:
    """A file of the certificate authorities of the system; where it has none, that of `requests`."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415

    return ssl.get_default_verify_paths().cafile or DEFAULT_CA_BUNDLE_PATH


def _serve(connection: Connection, latest: _LatestFrame, sending: threading.Lock) -> None:
    import cv2  # noqa: PLC0415  (after configure_opencv)

    memory: FrameMemory | None = None
    while _parent_is_alive():
        if not connection.poll(1.0):
            continue
        connection.recv_bytes()
        while (frame := latest.take(timeout=1.0)) is None:
            if connection.poll(0) or not _parent_is_alive():  # no message is due: the pipe was closed
                return
        height, width = frame.image.shape[:2]
        if memory is None or memory.size < frame.image.nbytes:
            with sending:
                connection.send(AllocateMemory(frame.image.nbytes))
            if memory is not None:
                memory.close()
            memory = FrameMemory.receive(connection)
        shared = memory.frame(height, width)
        if frame.order == "BGR":
            cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB, dst=shared)
        else:
            np.copyto(shared, frame.image)
        with sending:
            connection.send(
                GrabbedFrame(frame.index, frame.connection, frame.captured, frame.time, height, width, frame.damaged)
            )


def _parent_is_alive() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def _capture_forever(settings: CaptureSettings, latest: _LatestFrame, on_status: OnStatus) -> None:
    """Connect, read until the connection breaks, and repeat.

    After a connection that failed or broke soon there is a pause of up to 3 seconds.
    """
    from tenacity import Retrying, retry_if_result, wait_random_exponential  # noqa: PLC0415

    from msc_edge.runtime.stream.sources.capture import (  # noqa: PLC0415  (after configure_opencv)
        capture_frames,
        diagnose,
    )

    def connect() -> bool:
        """Read one connection to its end; whether it lasted."""
        latest.connection += 1
        started = time.monotonic()
        reason = ""
        try:
            for image, order in capture_frames(settings, skip=latest.skip, on_status=on_status):
                latest.put(image, order)
        except ConnectionBrokenError as error:
            reason = str(error)
        except Exception as error:  # this thread must go on, and the message may contain an address with its password
            reason = f"internal error ({type(error).__name__}); please report it"
        on_status("broken", reason or diagnose(settings, seconds=time.monotonic() - started))
        return time.monotonic() - started > _LASTING

    pause = wait_random_exponential(multiplier=0.2, max=3)
    while True:
        Retrying(wait=pause, retry=retry_if_result(lambda lasted: not lasted))(connect)
