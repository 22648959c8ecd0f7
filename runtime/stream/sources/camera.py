"""A live source: a webcam or network stream, in a process that can be killed. The latest frame is scored first."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.address import Address
from msc_edge.runtime.stream.sources.grabber import run_grabber
from msc_edge.runtime.stream.sources.health import Health, StateChange
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.sources.messages import (
    NEXT_FRAME,
    AllocateMemory,
    CaptureSettings,
    GrabbedFrame,
    StatusMessage,
)
from msc_edge.runtime.stream.sources.rate_limit import RateLimit

_TICK = 0.5  # longest wait for a frame, in seconds
_SAMPLE = 16  # comparing every 16th pixel of every 16th row distinguishes most frames


class Grabber:
    """The parent's side of the grabber process. Closing it kills the process and frees the shared memory."""

    def __init__(self, settings: CaptureSettings) -> None:
        """Start the process."""
        # Not fork: a process with threads must not be forked, and Windows cannot fork.
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(
            target=run_grabber, args=(child_connection, settings), daemon=True, name="msc-edge grabber"
        )
        self._process.start()
        child_connection.close()
        self._memory: SharedMemory | None = None
        self._requested = False

    @property
    def pid(self) -> int | None:
        """Id of the process."""
        return self._process.pid

    def next(self, timeout: float, *, request: bool = True) -> StatusMessage | tuple[GrabbedFrame, np.ndarray] | None:
        """The next message or frame, or None after `timeout` seconds. Without `request` no new frame is requested.

        A frame, uint8 (height, width, 3) RGB, is valid until the next call. Raises EOFError when the process has died.
        """
        connection: Connection = self._connection
        try:
            if request and not self._requested:
                connection.send_bytes(NEXT_FRAME)
                self._requested = True
            deadline = time.monotonic() + timeout
            while connection.poll(max(0.0, deadline - time.monotonic())):
                message = connection.recv()
                if isinstance(message, AllocateMemory):
                    connection.send(self._allocate(message.bytes))
                elif isinstance(message, GrabbedFrame):
                    self._requested = False
                    assert self._memory is not None, "allocated before the first frame"
                    shape = (message.height, message.width, 3)
                    return message, np.ndarray(shape, np.uint8, buffer=self._memory.buf)
                else:
                    return message
        except (OSError, EOFError) as error:
            raise EOFError("the process has ended") from error
        return None

    def _allocate(self, size: int) -> str:
        self._free()
        self._memory = SharedMemory(create=True, size=size)
        return self._memory.name

    def _free(self) -> None:
        if self._memory is not None:
            memory, self._memory = self._memory, None
            memory.unlink()
            try:
                memory.close()
            except BufferError:  # a frame of it is still in use; the memory is freed with that frame
                memory.close = lambda: None  # pyright: ignore[reportAttributeAccessIssue]

    def close(self) -> None:
        """Kill the process and free its resources."""
        self._process.kill()
        self._process.join(5)
        self._connection.close()
        self._free()
        if self._process.exitcode is not None:
            self._process.close()


class CameraSource:
    """Yields the frames of a live source, and restarts its grabber when needed; see `health`."""

    is_live = True

    def __init__(
        self, name: str, address: Address, config: SourceConfig, *, on_restart: Callable[[], None] = lambda: None
    ) -> None:
        """`on_restart` is called after the grabber process was restarted."""
        self.name = name
        self._address = address
        self._config = config
        self._settings = CaptureSettings(
            address,
            config.open_timeout,
            config.read_timeout,
            config.width,
            config.height,
            config.fps,
            config.ca_file,
            config.insecure,
        )
        self._on_restart = on_restart
        self._closed = threading.Event()
        self._last_status = ""
        self._reason = ""  # why the camera cannot be opened, if known
        self._grabber: Grabber | None = None
        self._health = Health(config.lost_after, config.frozen_after, time.monotonic())
        self._previous: np.ndarray | None = None
        self._grabbed_index = -1  # of the previous frame in the process
        self._index = -1  # of the previous frame in this source
        self._broken_connection = 0  # the last connection of the process that is known to be broken

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source. Frames that arrive while another one is scored are dropped and counted."""
        self._health = Health(self._config.lost_after, self._config.frozen_after, time.monotonic())
        rate_limit = RateLimit()
        interval = 1 / self._config.max_fps if self._config.max_fps else 0.0
        yielded = -interval
        if self._config.insecure:
            LOG.warning("%s: insecure = true: the certificate of the camera is not checked", self.name)
        self._grabber = Grabber(self._settings)
        try:
            while not self._closed.is_set():
                frame, now = None, time.monotonic()
                for item in self._next(pause=yielded + interval - now):
                    if isinstance(item, StateChange):
                        rate_limit.add(item)
                    elif item:
                        frame, yielded = item, time.monotonic()
                for change in rate_limit.due(time.monotonic()):
                    on_event(change.to, change.reason, change.seconds)
                yield frame
        finally:
            self._grabber.close()

    def _next(self, *, pause: float) -> Iterator[StateChange | Frame | None]:
        """Wait up to half a second for the grabber: state changes, and perhaps a frame.

        During a `pause` (seconds, from max_fps) no frame is requested.
        """
        assert self._grabber is not None, "started by frames()"
        health = self._health
        try:
            received = self._grabber.next(min(_TICK, pause) if pause > 0 else _TICK, request=pause <= 0)
        except EOFError:
            if self._closed.wait(_TICK):  # the stream is ending, and the process has ended first
                return
            now = time.monotonic()
            yield health.broken(now, "the process that reads the camera has died")
            self._restart(now)
            return
        now = time.monotonic()
        if isinstance(received, StatusMessage):
            self._log_status(received)
            if received.kind == "broken":
                self._broken_connection = received.connection
                yield health.broken(now, received.message)
        elif received is None:
            if pause > 0:
                health.not_requested(now)
            else:
                yield health.no_frame(now, self._reason)
        elif received[0].connection > self._broken_connection:
            yield from self._take(*received, now)
        if health.restart_due(now):
            self._restart(now)

    def _take(self, grabbed: GrabbedFrame, image: np.ndarray, now: float) -> Iterator[StateChange | Frame | None]:
        repeated = False
        if self._config.frozen_after:  # a comparison and a copy of each frame
            repeated = self._previous is not None and _are_equal(self._previous, image)
            if not repeated:
                self._previous = image.copy()
        yield self._health.frame(now, repeated=repeated)
        dropped = grabbed.index - self._grabbed_index - 1
        self._grabbed_index = grabbed.index
        self._index += 1 + dropped
        if self._health.scorable:
            yield Frame(
                source=self.name,
                index=self._index,
                time=datetime.fromtimestamp(grabbed.time, UTC),
                captured=grabbed.captured,
                image=image,
                dropped=dropped,
            )

    def _restart(self, now: float) -> None:
        """Restart the process, unless it was restarted too often in the last minute."""
        assert self._grabber is not None, "started by frames()"
        if not self._health.may_restart(now):
            return
        self._grabber.close()
        self._grabber = Grabber(self._settings)
        self._grabbed_index, self._broken_connection = -1, 0
        self._health.restarted(now)
        self._on_restart()
        LOG.info("%s: the process that reads the camera was restarted", self.name)

    def _log_status(self, status: StatusMessage) -> None:
        """Log a status message, unless it repeats the previous one."""
        if (text := f"{status.kind} {status.message}") == self._last_status:
            return
        self._last_status = text
        self._reason = "" if status.kind == "open" else status.message
        if status.kind == "damaged":
            LOG.warning("%s: %s", self.name, status.message)
            return
        if status.kind == "open":
            LOG.info("%s: %s is open: %s", self.name, self._address.shown, status.message)
        else:
            LOG.warning("%s: %s: %s; trying again", self.name, self._address.shown, status.message)

    def close(self) -> None:
        """See Source."""
        self._closed.set()


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether all pixels of two frames are equal. A sample is compared first: nearly all frames differ in it."""
    if one.shape != other.shape:
        return False
    sample = np.s_[::_SAMPLE, ::_SAMPLE]
    return np.array_equal(one[sample], other[sample]) and np.array_equal(one, other)
