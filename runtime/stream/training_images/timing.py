"""When a frame is examined: at a rate, or when a line is read from standard input."""

import os
import queue
import threading
import time
from typing import Protocol

from msc_edge.runtime.stream.frame import Frame

_SETTLING = 2.0  # seconds in which a camera adjusts its exposure and its focus


class Timing(Protocol):
    """Decides which frames are examined."""

    @property
    def has_ended(self) -> bool:
        """Whether no further frame will be examined."""
        ...

    def is_due(self, frame: Frame, moment: float | None) -> bool:
        """Whether to examine this frame, of a time in seconds; None where the source has no time."""
        ...


class Rate:
    """One frame in each interval."""

    has_ended = False

    def __init__(self, seconds: float, *, settling: bool) -> None:
        """`settling`: a camera gets two seconds before its first frame is examined."""
        self._interval = seconds
        self._settling = _SETTLING if settling else 0.0
        self._next: float | None = None

    def is_due(self, frame: Frame, moment: float | None) -> bool:  # noqa: ARG002
        """See Timing. All frames of a source without times."""
        if moment is None:
            return True
        if self._next is None:
            self._next = moment + self._settling
        if moment < self._next:
            return False
        self._next = moment + self._interval
        return True


class LineTrigger:
    """The first frame after each line of standard input: after each Enter at a terminal."""

    def __init__(self, descriptor: int = 0) -> None:
        """Start to read. `descriptor`: of the file to read."""
        self._descriptor = descriptor
        self._lines: queue.Queue[float] = queue.Queue()
        self._closed = threading.Event()
        # Not sys.stdin: a thread that waits in it makes the interpreter fail when it ends.
        threading.Thread(target=self._read, name="msc-edge trigger", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        """See Timing: whether the input has ended and all its lines are used."""
        return self._closed.is_set() and self._lines.empty()

    def is_due(self, frame: Frame, moment: float | None) -> bool:  # noqa: ARG002
        """See Timing."""
        with self._lines.mutex:
            if not self._lines.queue or frame.captured < self._lines.queue[0]:
                return False
            self._lines.queue.popleft()
        return True

    def _read(self) -> None:
        try:
            while data := os.read(self._descriptor, 4096):
                for _ in range(data.count(b"\n")):
                    self._lines.put(time.monotonic())
        except OSError:  # it is closed
            pass
        self._closed.set()
