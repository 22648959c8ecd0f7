"""The age of what was stored, by a clock that may be wrong and may be set.

A PC without a battery boots in 2020, and the network sets its clock to 2026: minutes later, or at the next boot. What
was stored before would then seem to be six years old, and would be deleted. An age is therefore no difference of two
times of the wall clock. It is the sum of the seconds that a clock which is never set has counted since, boot by boot.
The time between two boots is unknown and counts nothing: an age is never more than the time that has really passed.
"""

import contextlib
import itertools
import json
import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from msc_edge.errors import OutputError
from msc_edge.files import written_whole
from msc_edge.runtime.stream.logs import LOG

FILE = "clock.json"
_SMALLEST_STEP = 60.0  # seconds; a smaller correction makes no difference to ages in days
_MOST_STRETCHES = 1000  # boots and steps; what was stored before them counts as stored at the first of them
_ROUNDING = 0.01  # seconds
_LONGEST = 100 * 365.25 * 86400  # seconds; no count is larger
_SAVE_INTERVAL = 600.0  # seconds; at most so much is not counted after a power cut
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Identifies this boot of the machine; where the system has no such id, this process."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return _OF_THIS_PROCESS


def seconds_since_boot() -> float:
    """A clock that is never set, suspended time included where the system counts it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


_OF_THIS_PROCESS = uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of one boot in which the wall clock was not set. All values in seconds."""

    start: float
    """The wall clock at its first reading."""
    end: float
    """The wall clock at its last reading."""
    before: float
    """Counted before it."""
    seconds: float
    """Its length by the clock that is never set."""

    @property
    def drift(self) -> float:
        """How far the wall clock was corrected in it, slowly or at once."""
        return self.end - self.start - self.seconds


@dataclass(frozen=True, slots=True)
class _Reading:
    """The wall clock, and the clock that is never set, at one moment."""

    boot: str
    wall: float
    running: float


def _check(stretches: list[_Stretch], last: _Reading) -> None:
    """ValueError for what no clock has counted: a damaged file must not make everything old, or nothing ever."""
    if not stretches:
        raise ValueError("no stretches")
    times = [last.wall, last.running, *(value for each in stretches for value in astuple(each))]
    if not all(map(math.isfinite, times)):
        raise ValueError("a time is not finite")
    if any(each.seconds < 0 or abs(each.drift) > _SMALLEST_STEP + _ROUNDING for each in stretches):
        raise ValueError("the length of a stretch is wrong")
    for one, other in itertools.pairwise(stretches):
        if abs(other.before - one.before - one.seconds) > _ROUNDING:
            raise ValueError("a sum is wrong")
    if not 0 <= stretches[0].before <= stretches[-1].before + stretches[-1].seconds <= _LONGEST:
        raise ValueError("more was counted than can have passed")


class Clock:
    """Counts the time that passes, and knows what the wall clock showed meanwhile. Safe to use from several threads."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        wall: Callable[[], float] = time.time,
        running: Callable[[], float] = seconds_since_boot,
        boot: str | None = None,
    ) -> None:
        """`path`: a file that keeps the count over restarts and boots; None counts from now, in memory only.

        `wall` is seconds since 1970, `running` seconds of a clock that is never set, `boot` identifies its start.
        """
        self._path = path
        self._wall = wall
        self._running = running
        self._boot = boot or boot_id()
        self._lock = threading.Lock()
        self._last = self._read()
        self._stretches = [_Stretch(self._last.wall, self._last.wall, 0, 0)]
        self._restore()
        self.counted()

    def counted(self) -> float:
        """Seconds counted until now. Call it often: a step of the wall clock is then recorded soon."""
        with self._lock:
            return self._observe()

    def counted_at(self, stamp: float) -> float:
        """Seconds that were counted when the wall clock showed `stamp`.

        In case of doubt the later moment, so that nothing is taken for older than it is: where several boots have
        shown this time, the last of them; where none is known to, the end of the last one that may have gone on to it.
        """
        with self._lock:
            self._observe()
            # A little more than was read: before the first reading, and after the last one that was saved.
            for each in reversed(self._stretches):
                if each.start - _SMALLEST_STEP <= stamp <= each.end + _SAVE_INTERVAL:
                    return each.before + min(max(0.0, stamp - each.start), each.seconds)
            earlier = [each.before + each.seconds for each in self._stretches if each.end <= stamp]
            return max(earlier, default=self._stretches[0].before)

    def age(self, stamp: float) -> float:
        """Seconds counted since the wall clock showed `stamp`: at most as many as have really passed."""
        return self.counted() - self.counted_at(stamp)

    def save(self) -> None:
        """Write what was counted to the file; a full disk leaves it in memory."""
        with self._lock:
            self._observe()
            self._write()

    def _read(self) -> _Reading:
        return _Reading(self._boot, self._wall(), self._running())

    def _observe(self) -> float:
        """Count until now. Call it with the lock held."""
        reading, last, stretch = self._read(), self._last, self._stretches[-1]
        self._last = reading
        passed = reading.running - last.running
        grown = replace(stretch, end=reading.wall, seconds=stretch.seconds + passed)
        if reading.boot != last.boot or passed < 0:  # nobody knows how much time lies between
            self._begin(reading)
        elif abs(grown.drift) < _SMALLEST_STEP:
            self._stretches[-1] = grown
        else:
            self._stretches[-1] = replace(grown, end=last.wall + passed)
            self._begin(reading)
            # Many slow corrections begin a stretch too: within one, the two clocks must agree.
            if abs(step := reading.wall - last.wall - passed) >= _SMALLEST_STEP:
                LOG.warning("the clock of this PC was set by %+.0f s; ages are not affected", step)
        if reading.running - self._saved >= _SAVE_INTERVAL:
            self._write()
        return self._stretches[-1].before + self._stretches[-1].seconds

    def _begin(self, reading: _Reading) -> None:
        """Begin a stretch."""
        last = self._stretches[-1]
        new = _Stretch(reading.wall, reading.wall, last.before + last.seconds, 0)
        self._stretches = [*self._stretches, new][-_MOST_STRETCHES:]
        self._saved = float("-inf")

    def _restore(self) -> None:
        """Take over what was counted in the file; a step in this boot while no process ran is found too."""
        self._saved = float("-inf")
        if self._path is None:
            return
        try:
            document = json.loads(self._path.read_bytes())
            stretches = [_Stretch(*map(float, values)) for values in document["stretches"]]
            boot, wall, running = document["last"]
            last = _Reading(str(boot), float(wall), float(running))
            _check(stretches, last)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            LOG.warning(
                "%s: cannot be used (%s); what was stored before this start counts as stored now", self._path, error
            )
        else:
            self._stretches, self._last = stretches, last

    def _write(self) -> None:
        """Write the file. Call it with the lock held."""
        self._saved = self._last.running
        if self._path is None:
            return
        document = {"last": astuple(self._last), "stretches": [astuple(each) for each in self._stretches]}
        with contextlib.suppress(OutputError), written_whole(self._path) as partial:  # a full disk: in memory only
            partial.write_text(json.dumps(document), encoding="utf-8")
