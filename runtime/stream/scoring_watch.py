"""Reports a source whose frames arrive and cannot be scored: alive means scored."""

import time
from collections.abc import Callable

from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.statistics import Statistics

_FEWEST = 3  # frames in a row; one damaged file is not a state of the source


class ScoringWatch:
    """Compares what arrives with what is scored. Call `look` a few times a second, from one thread."""

    def __init__(
        self, statistics: Statistics, journal: EventJournal, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock`: as `time.monotonic`."""
        self._statistics = statistics
        self._journal = journal
        self._clock = clock
        self._since: dict[str, float] = {}

    def look(self, source: str, limit: float) -> None:
        """Report `not_scored` after `limit` seconds without a scored frame (0: never), and when one is scored again."""
        unscored = self._statistics.unscored(source)
        condition = self._statistics.condition(source)
        now = self._clock()
        if condition == "not_scored":
            if unscored is None:
                seconds = now - self._since.pop(source, now)
                self._journal.report("source_up", "frames are scored again", source=source, seconds=seconds)
            return
        if condition != "source_up" or unscored is None or not limit:
            return
        if unscored.frames >= _FEWEST and now - unscored.since >= limit:
            self._since[source] = unscored.since
            self._journal.report(
                "not_scored",
                f"{unscored.frames} frames in {now - unscored.since:.0f} s, and none could be scored: "
                f"{unscored.reason}",
                source=source,
            )

    def not_ready(self, source: str) -> str | None:
        """Why a source is not scored; None when nothing is known against it."""
        unscored = self._statistics.unscored(source)
        if unscored is None or self._statistics.condition(source) != "not_scored":
            return None
        seconds = self._clock() - unscored.since
        return f"no frame could be scored for {seconds:.0f} s: {unscored.reason}"
