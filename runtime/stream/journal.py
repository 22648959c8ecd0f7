"""The journal of events: each event is logged, counted, and put into the outbox."""

import logging
from pathlib import Path

from msc_edge.runtime.stream.active_kit import ActiveKits
from msc_edge.runtime.stream.alarm import Waiting
from msc_edge.runtime.stream.events import Event, EventKind, describe_rejection, new_id, now, rejection, unreadable
from msc_edge.runtime.stream.frame import Decision, ProcessedFile
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.statistics import Statistics
from msc_edge.text import valid_text

_LEVELS: dict[EventKind, int] = {
    "unreadable": logging.WARNING,
    "source_lost": logging.WARNING,
    "source_frozen": logging.WARNING,
    "folder_incomplete": logging.ERROR,
    "not_scored": logging.ERROR,
    "drift_suspected": logging.WARNING,
    "kit_refused": logging.ERROR,
    "learned_refused": logging.ERROR,
    "results_lost": logging.ERROR,
    "events_lost": logging.ERROR,
}


class EventJournal:
    """Records the events of one stream. Safe to use from several threads."""

    def __init__(
        self, outbox: Outbox, *, station: str, kits: ActiveKits, statistics: Statistics, metrics: Metrics
    ) -> None:
        """`kits`: named in events that are not about one frame."""
        self._outbox = outbox
        self._station = station
        self._kits = kits
        self._statistics = statistics
        self._metrics = metrics

    def report(
        self,
        kind: EventKind,
        message: str,
        *,
        source: str | None = None,
        count: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Build and record an event. `message`: a sentence. For `source`, `count` and `seconds` see `Event`."""
        self.record(
            Event(
                id=new_id(),
                kind=kind,
                time=now(),
                station=self._station,
                source=source,
                message=valid_text(f"{source}: {message}" if source else message),
                kit=self._kits.sha256(source),
                count=count,
                seconds=seconds,
            )
        )

    def rejection(self, decision: Decision, image: Path | None, *, suppressed: int = 0) -> Event:
        """Build the event of a rejected frame, not yet recorded. `image`: where the frame was saved.

        `suppressed`: see `Event`.
        """
        return rejection(decision, image, station=self._station, suppressed=suppressed)

    def log_waiting(self, decision: Decision, waiting: Waiting) -> None:
        """Log a rejected frame that raises no event yet."""
        frame, result, after = decision.frame, decision.result, waiting.after
        assert result is not None, "only a scored frame is rejected"
        LOG.info(
            "%s; no `reject` event yet: %d of %d rejects among the last %d frames",
            describe_rejection(decision),
            waiting.rejects,
            after.m,
            after.n,
            extra={
                "fields": {
                    "source": frame.source,
                    "frame": frame.index,
                    "verdict": result.verdict,
                    "score": result.score,
                    "limit": result.limit,
                    "rejects": waiting.rejects,
                    "after": str(after),
                }
            },
        )

    def unreadable(self, decision: Decision) -> Event:
        """Build the event of a file that could not be read or scored, not yet recorded."""
        return unreadable(decision, station=self._station)

    def record(self, event: Event) -> None:
        """Log and count an event, and put it into the outbox. It is in memory only while the disk is full."""
        self._log_and_count(event)
        self._outbox.put([event])

    def record_file(self, file: ProcessedFile, event: Event | None) -> None:
        """Record a processed file, with its event if it has one, in one transaction; see `record`."""
        if event:
            self._log_and_count(event)
        self._outbox.put([event] if event else [], file)

    def _log_and_count(self, event: Event) -> None:
        self._statistics.add_event(event.kind, event.source)
        self._metrics.add_event(event)
        LOG.log(
            _LEVELS.get(event.kind, logging.INFO),
            "%s: %s",
            event.kind,
            event.message,
            extra={"fields": event.model_dump(mode="json", exclude_none=True, exclude={"message", "schema_version"})},
        )
