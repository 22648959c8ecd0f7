"""The age of what was stored, by a clock that may be corrected.

A PC without a battery boots in 2020, and minutes later the network sets its clock to 2026. What was stored before would
then seem to be six years old, and would be deleted. Each step of the wall clock is therefore recorded: a time from
before the step is corrected by it, so that an age is the time that has really passed.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from msc_edge.errors import OutputError
from msc_edge.files import written_whole
from msc_edge.runtime.stream.logs import LOG

FILE = "clock.json"
_SMALLEST_STEP = 60.0  # seconds; a smaller correction makes no difference to ages in days
_MAX_STEPS = 200
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
class Step:
    """The wall clock was set. All values in seconds."""

    boot: str
    start: float
    """First time that the clock showed before it was set, since the boot or the step before."""
    end: float
    """Last time that the clock showed before it was set."""
    seconds: float
    """How far it was set forward; negative: back."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """The wall clock, and the clock that is never set, at one moment."""

    boot: str
    wall: float
    running: float

    @property
    def offset(self) -> float:
        return self.wall - self.running


class Clock:
    """The wall clock with its steps. Safe to use from several threads."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        wall: Callable[[], float] = time.time,
        running: Callable[[], float] = seconds_since_boot,
        boot: str | None = None,
    ) -> None:
        """`path`: a file that keeps the steps over restarts of the service; None keeps them in memory only.

        `wall` is seconds since 1970, `running` seconds of a clock that is never set, `boot` identifies its start.
        """
        self._path = path
        self._wall = wall
        self._running = running
        self._boot = boot or boot_id()
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._first = self._last = self._read()
        self._restore()

    def now(self) -> float:
        """The wall clock, in seconds since 1970."""
        with self._lock:
            return self._observe().wall

    def age(self, stamp: float) -> float:
        """Seconds that have passed since the wall clock showed `stamp`, without the steps since then."""
        return self.now() - self.corrected(stamp)

    def corrected(self, stamp: float) -> float:
        """What the clock would have shown, had it been right, when it showed `stamp`.

        Where two boots have shown the same time, the later one: nothing is taken for older than it is.
        """
        with self._lock:
            self._observe()
            found = [stamp + self._correction(step) for step in self._steps if step.start <= stamp <= step.end]
        return max(found, default=stamp)

    def steps(self) -> int:
        """Number of steps so far: a reason to compute ages again."""
        with self._lock:
            self._observe()
            return len(self._steps)

    def _correction(self, step: Step) -> float:
        """This step and the later ones of its boot."""
        return sum(each.seconds for each in self._steps[self._steps.index(step) :] if each.boot == step.boot)

    def _read(self) -> _Reading:
        return _Reading(self._boot, self._wall(), self._running())

    def _observe(self) -> _Reading:
        reading = self._read()
        step = reading.offset - self._last.offset
        if abs(step) >= _SMALLEST_STEP:
            shown = reading.running + self._last.offset
            self._steps = [*self._steps, Step(self._boot, self._first.wall, shown, step)][-_MAX_STEPS:]
            self._first = self._last = reading
            LOG.warning("the clock of this PC was set by %+.0f s; ages are not affected", step)
            self._save()
        else:
            self._last = reading  # the clock drifts, and is corrected slowly
        return reading

    def _restore(self) -> None:
        """Take over the steps in the file; a step of this boot while no process ran is found too."""
        if self._path is None:
            return
        try:
            document = json.loads(self._path.read_bytes())
            self._steps = [Step(**step) for step in document["steps"]]
            first, last = _Reading(**document["first"]), _Reading(**document["last"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as error:
            LOG.warning(
                "%s: cannot be used (%s); steps of the clock before this start are forgotten", self._path, error
            )
        else:
            if last.boot == self._boot:
                self._first, self._last = first, last
        self._observe()
        self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        document = {
            "steps": [asdict(step) for step in self._steps],
            "first": asdict(self._first),
            "last": asdict(self._last),
        }
        with contextlib.suppress(OutputError), written_whole(self._path) as partial:  # a full disk: in memory only
            partial.write_text(json.dumps(document), encoding="utf-8")
