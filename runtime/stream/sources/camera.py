"""A live source: a webcam or a network stream, held by a process that can be killed. Freshest first."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.address import Address
from msc_edge.runtime.stream.sources.grabber import NEXT, AllocateMemory, Grabbed, StatusMessage, Wanted, grab
from msc_edge.runtime.stream.sources.health import Health, StateChange
from msc_edge.runtime.stream.sources.interface import OnEvent
from msc_edge.runtime.stream.sources.rate_limit import RateLimit

_TICK = 0.5  # seconds between two looks at the clock while no frame comes
_SAMPLE = 16  # every 16th pixel of every 16th row tells most frames apart


class Grabber:
    """The other process, from this side. Closing it kills it and frees the shared memory."""

    def __init__(self, wanted: Wanted) -> None:
        """Start it."""
        # Not fork: a process with threads must not be forked, and Windows cannot.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=grab, args=(theirs, wanted), daemon=True, name="msc-edge grabber")
        self._process.start()
        theirs.close()
        self._memory: SharedMemory | None = None
        self._asked = False

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def next(self, timeout: float, *, ask: bool = True) -> StatusMessage | tuple[Grabbed, np.ndarray] | None:
        """What comes next, or None when nothing does in `timeout` seconds. Without `ask` no new frame is asked for.

        A frame, uint8 (height, width, 3) RGB, is valid until the next call. Raises EOFError when the process has died.
        """
        connection: Connection = self._connection
        try:
            if ask and not self._asked:
                connection.send_bytes(NEXT)
                self._asked = True
            until = time.monotonic() + timeout
            while connection.poll(max(0.0, until - time.monotonic())):
                message = connection.recv()
                if isinstance(message, AllocateMemory):
                    connection.send(self._make_room(message.bytes))
                elif isinstance(message, Grabbed):
                    self._asked = False
                    assert self._memory is not None, "room was made before the first frame"
                    shape = (message.height, message.width, 3)
                    return message, np.ndarray(shape, np.uint8, buffer=self._memory.buf)
                else:
                    return message
        except (OSError, EOFError) as error:
            raise EOFError("the process has gone") from error
        return None

    def _make_room(self, size: int) -> str:
        self._free()
        self._memory = SharedMemory(create=True, size=size)
        return self._memory.name

    def _free(self) -> None:
        if self._memory is not None:
            memory, self._memory = self._memory, None
            memory.unlink()
            try:
                memory.close()
            except BufferError:  # a frame of it is still being looked at; it is freed with that
                memory.close = lambda: None  # pyright: ignore[reportAttributeAccessIssue]

    def close(self) -> None:
        """End the process and free what it had."""
        self._process.kill()
        self._process.join(5)
        self._connection.close()
        self._free()
        if self._process.exitcode is not None:
            self._process.close()


class CameraSource:
    """A source that is live, and is to stay so: see `health`."""

    is_live = True

    def __init__(
        self, name: str, address: Address, config: SourceConfig, *, restarted: Callable[[], None] = lambda: None
    ) -> None:
        """`restarted` is called when the process that holds the camera was started anew."""
        self.name = name
        self._address = address
        self._config = config
        self._wanted = Wanted(
            address, config.open_timeout, config.read_timeout, config.width, config.height, config.fps
        )
        self._restarted = restarted
        self._closed = threading.Event()
        self._said = self._why = ""
        self._grabber: Grabber | None = None
        self._health = Health(config.lost_after, config.frozen_after, time.monotonic())
        self._last: np.ndarray | None = None  # the frame before
        self._read, self._count = -1, -1  # its number in the process, and in all
        self._broken = 0  # the last connection of the process that is known to be broken

    def frames(self, tell: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source. Frames that came while the one before was scored are dropped, and counted."""
        self._health = Health(self._config.lost_after, self._config.frozen_after, time.monotonic())
        damper = RateLimit()
        pause = 1 / self._config.max_fps if self._config.max_fps else 0.0
        given = -pause
        self._grabber = Grabber(self._wanted)
        try:
            while not self._closed.is_set():
                frame, now = None, time.monotonic()
                for change in self._look(given + pause - now):
                    if isinstance(change, StateChange):
                        damper.take(change)
                    elif change:
                        frame, given = change, time.monotonic()
                for turn in damper.due(time.monotonic()):
                    tell(turn.to, turn.reason, turn.seconds)
                yield frame
        finally:
            self._grabber.close()

    def _look(self, pause: float) -> Iterator[StateChange | Frame | None]:
        """What comes next from the camera, within half a second: changes of its state, and perhaps a frame.

        While `pause` seconds are left, no frame is asked for.
        """
        assert self._grabber is not None, "started by frames()"
        health = self._health
        try:
            found = self._grabber.next(min(_TICK, pause) if pause > 0 else _TICK, ask=pause <= 0)
        except EOFError:
            if self._closed.wait(_TICK):  # whoever ends us has ended it first
                return
            now = time.monotonic()
            yield health.broken(now, "the process that reads the camera has died")
            self._restart(now)
            return
        now = time.monotonic()
        if isinstance(found, StatusMessage):
            self._say(found)
            if found.kind == "broken":
                self._broken = found.connection
                yield health.broken(now, found.words)
        elif found is None:
            if pause > 0:
                health.idle(now)
            else:
                yield health.tick(now, self._why)
        elif found[0].connection > self._broken:
            yield from self._take(*found, now)
        if health.restart_due(now):
            self._restart(now)

    def _take(self, grabbed: Grabbed, image: np.ndarray, now: float) -> Iterator[StateChange | Frame | None]:
        repeated = self._last is not None and _same(self._last, image)
        if not repeated:
            self._last = image.copy()
        yield self._health.frame(now, repeated=repeated)
        dropped = grabbed.index - self._read - 1
        self._read = grabbed.index
        self._count += 1 + dropped
        if self._health.scorable:
            yield Frame(
                source=self.name,
                index=self._count,
                time=datetime.fromtimestamp(grabbed.time, UTC),
                captured=grabbed.captured,
                image=image,
                dropped=dropped,
            )

    def _restart(self, now: float) -> None:
        """Start the process anew, unless that was done too often lately."""
        assert self._grabber is not None, "started by frames()"
        if not self._health.may_restart(now):
            return
        self._grabber.close()
        self._grabber = Grabber(self._wanted)
        self._read, self._broken = -1, 0
        self._health.restarted(now)
        self._restarted()
        LOG.info("%s: the process that reads the camera was started anew", self.name)

    def _say(self, news: StatusMessage) -> None:
        """Log it, once for as long as it stays the same."""
        if (words := f"{news.kind} {news.words}") == self._said:
            return
        self._said = words
        if news.kind == "damaged":
            LOG.warning("%s: %s", self.name, news.words)
            return
        self._why = "" if news.kind == "open" else news.words
        if news.kind == "open":
            LOG.info("%s: %s is open: %s", self.name, self._address.shown, news.words)
        else:
            LOG.warning("%s: %s: %s; trying again", self.name, self._address.shown, news.words)

    def done(self, decision: Decision) -> None:
        """A live frame does not come again."""

    def close(self) -> None:
        """See Source."""
        self._closed.set()


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames are equal, pixel by pixel. A sample settles it for nearly all that are not."""
    if one.shape != other.shape:
        return False
    sample = np.s_[::_SAMPLE, ::_SAMPLE]
    return np.array_equal(one[sample], other[sample]) and np.array_equal(one, other)
