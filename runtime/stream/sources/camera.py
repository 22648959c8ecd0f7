"""A live source: a webcam or network stream, in a process that can be killed. The latest frame is scored first."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import numpy as np

from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.address import Address
from msc_edge.runtime.stream.sources.frame_memory import FrameMemory
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
from msc_edge.runtime.stream.sources.outage import Outage, OutageLog
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
        self._memory: FrameMemory | None = None
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
                    self._free()
                    self._memory = FrameMemory.create(message.bytes)
                    self._memory.send(connection, self._process.pid or 0)
                elif isinstance(message, GrabbedFrame):
                    self._requested = False
                    assert self._memory is not None, "allocated before the first frame"
                    return message, self._memory.frame(message.height, message.width)
                else:
                    return message
        except (OSError, EOFError) as error:
            raise EOFError("the process has ended") from error
        return None

    def _free(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

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
    partial_outage = ""

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
        self._reason = ""  # why no frames come, as the process last gave it
        self._outage: Outage | None = Outage("connecting")
        self._outage_log = OutageLog(f"{name}: {address.shown}")
        self._grabber: Grabber | None = None
        self._health = Health(config.lost_after, config.frozen_after, time.monotonic())
        self._previous: np.ndarray | None = None
        self._grabbed_index = -1  # of the previous frame in the process
        self._damaged = 0  # frames in the process until the previous one
        self._paused = False  # since the previous frame, for max_fps
        self._index = -1  # of the previous frame in this source
        self._broken_connection = 0  # the last connection of the process that is known to be broken

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source. Frames that arrive while another one is scored are dropped and counted."""
        self._health = Health(self._config.lost_after, self._config.frozen_after, time.monotonic())
        self._outage = Outage("connecting")
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
                        self._note_outage(item, last_frame=yielded)
                        rate_limit.add(item)
                    elif item:
                        frame, yielded = item, time.monotonic()
                if self._outage:
                    self._outage = replace(self._outage, reason=self._reason or self._outage.reason)
                    self._outage_log.report(self._outage)
                for change in rate_limit.due(time.monotonic()):
                    on_event(change.to, change.reason, change.seconds)
                yield frame
        finally:
            self._grabber.close()

    @property
    def outage(self) -> Outage | None:
        """See Source."""
        return self._outage

    def _note_outage(self, change: StateChange, *, last_frame: float) -> None:
        if change.to == "source_up":
            self._outage = None
            self._outage_log.clear()
            return
        state = "frozen" if change.to == "source_frozen" else "lost"
        self._outage = replace(self._outage or Outage.since_monotonic(last_frame), state=state, reason=change.reason)

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
            self._note_status(received)
            if received.kind == "broken":
                self._broken_connection = received.connection
                yield health.broken(now, received.message)
            elif pause <= 0:  # a camera may send nothing but damaged images
                yield health.no_frame(now, self._reason)
        elif received is None:
            if pause > 0:
                self._paused = True
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
        missed = grabbed.index - self._grabbed_index - 1
        damaged = min(missed, grabbed.damaged - self._damaged)
        # After a pause the stream was ready for more frames: those that it missed were left out on purpose.
        skipped, self._paused = missed - damaged if self._paused else 0, False
        self._grabbed_index, self._damaged = grabbed.index, grabbed.damaged
        self._index += 1 + missed
        if self._health.scorable:
            yield Frame(
                source=self.name,
                index=self._index,
                time=datetime.fromtimestamp(grabbed.time, UTC),
                captured=grabbed.captured,
                image=image,
                dropped=missed - skipped,
                skipped=skipped,
            )

    def _restart(self, now: float) -> None:
        """Restart the process, unless it was restarted too often in the last minute."""
        assert self._grabber is not None, "started by frames()"
        if not self._health.may_restart(now):
            return
        self._grabber.close()
        self._grabber = Grabber(self._settings)
        self._grabbed_index, self._damaged, self._broken_connection = -1, 0, 0
        self._health.restarted(now)
        self._on_restart()
        LOG.info("%s: the process that reads the camera was restarted", self.name)

    def _note_status(self, status: StatusMessage) -> None:
        """Keep the reason of a failure for the outage; log others, unless they repeat the previous one."""
        self._reason = "" if status.kind == "open" else status.message
        if (text := f"{status.kind} {status.message}") == self._last_status:
            return
        self._last_status = text
        if status.kind == "damaged":
            LOG.warning("%s: %s", self.name, status.message)
        elif status.kind == "open":
            LOG.info("%s: %s is open: %s", self.name, self._address.shown, status.message)

    def scored(self) -> None:
        """See Source."""

    def close(self) -> None:
        """See Source."""
        self._closed.set()


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether all pixels of two frames are equal. A sample is compared first: nearly all frames differ in it."""
    if one.shape != other.shape:
        return False
    sample = np.s_[::_SAMPLE, ::_SAMPLE]
    return np.array_equal(one[sample], other[sample]) and np.array_equal(one, other)
