"""Metrics of a stream for Prometheus."""

from collections.abc import Iterable, Mapping
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from msc_edge.calibration import Verdict
from msc_edge.runtime.metrics_registry import MetricsRegistry
from msc_edge.runtime.stream.events import SCORED_AFTER, Event, EventKind
from msc_edge.runtime.stream.frame import Decision

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds


class Metrics:
    """The metrics of one stream. Safe to use from several threads."""

    def __init__(self) -> None:
        self._registry = registry = MetricsRegistry()

        def counter(name: str, description: str, *labels: str) -> Counter:
            return Counter(f"msc_edge_{name}", description, labels, registry=registry)

        def gauge(name: str, description: str, *labels: str) -> Gauge:
            return Gauge(f"msc_edge_{name}", description, labels, registry=registry)

        self._frames = counter("frames_total", "Frames that were scored", "source", "verdict")
        self._dropped = counter(
            "frames_dropped_total", "Frames of live sources that were lost: too many to score, or damaged", "source"
        )
        self._skipped = counter("frames_skipped_total", "Frames that were left out because of max_fps", "source")
        self._unreadable = counter("unreadable_total", "Image files that could not be read", "source")
        self._events = counter("events_total", "Events, by kind", "kind")
        self._results_lost = counter("results_lost_total", "Rows and images that could not be written")
        self._events_lost = counter("events_lost_total", "Events dropped from the outbox for size or age")
        self._restarts = counter("source_restarts_total", "Restarts of a live source", "source")
        self._up = gauge("source_up", "1 while frames of the source are scored, else 0", "source")
        self._backlog = gauge("outbox_depth", "Events in the outbox", "channel")
        self._set_aside = gauge(
            "outbox_set_aside",
            "Events in the outbox that are refused, or that make the other side disconnect",
            "channel",
        )
        self._rows_waiting = gauge("rows_waiting", "Rows in memory that their disk does not take")
        self._last_frame = gauge(
            "last_frame_timestamp_seconds", "Time of capture of the last frame that was scored", "source"
        )
        self._drift = gauge(
            "drift_evidence", "Evidence of a drift: 1 without any, 100 when drift_suspected is reported", "source"
        )
        self._kit = gauge("kit_info", "Always 1; the labels identify the active kit", "kit", "backbone")
        self._stages = Histogram(
            "msc_edge_stage_seconds",
            "Duration of the stages of a frame: age (capture until scoring), infer, search, total",
            ["stage"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._triggers = counter("triggers_total", "Triggers, by the status of their answer", "status")
        self._answers = Histogram(
            "msc_edge_trigger_answer_seconds",
            "Time from a trigger to its answer, of triggers that were scored",
            registry=registry,
            buckets=_BUCKETS,
        )
        for kind in get_args(EventKind):  # Prometheus does not see the first increase of a counter that appears with it
            self._events.labels(kind)

    def add_source(self, name: str) -> None:
        """Add a source. Its counts start at 0, and it is not up yet."""
        for verdict in get_args(Verdict):
            self._frames.labels(name, verdict)
        for metric in (self._dropped, self._skipped, self._unreadable, self._restarts, self._up):
            metric.labels(name)

    def add_decision(self, decision: Decision) -> None:
        """Count a frame, the frames dropped and skipped before it, and the duration of its stages."""
        frame, stages = decision.frame, decision.stages
        self._dropped.labels(frame.source).inc(frame.dropped)
        self._skipped.labels(frame.source).inc(frame.skipped)
        if decision.verdict is None:
            self._unreadable.labels(frame.source).inc()
        else:
            self._frames.labels(frame.source, decision.verdict).inc()
            self._last_frame.labels(frame.source).set(frame.time.timestamp())
        if stages:
            for name in ("age", "infer", "search", "total"):
                self._stages.labels(name).observe(getattr(stages, name) / 1000)

    def add_event(self, event: Event) -> None:
        """Count an event, and update the state of its source or the number of losses."""
        self._events.labels(event.kind).inc()
        if event.kind == "results_lost":
            self._results_lost.inc(event.count or 0)
        elif event.kind == "events_lost":
            self._events_lost.inc(event.count or 0)
        elif event.source and event.kind in SCORED_AFTER:
            self._up.labels(event.source).set(SCORED_AFTER[event.kind])

    def add_triggers(self, statuses: Iterable[str]) -> None:
        """Count triggers, by these statuses, from 0."""
        for status in statuses:
            self._triggers.labels(status)

    def add_answer(self, status: str, seconds: float) -> None:
        """Count the answer to a trigger, and its duration if a frame was scored."""
        self._triggers.labels(status).inc()
        if status == "scored":
            self._answers.observe(seconds)

    def add_restart(self, source: str) -> None:
        """Count a restart of a live source."""
        self._restarts.labels(source).inc()

    def set_backlog(self, backlog: Mapping[str, int], set_aside: Mapping[str, int], *, rows: int = 0) -> None:
        """Set the numbers of events in the outbox of each channel, of those set aside, and of rows that wait."""
        self._rows_waiting.set(rows)
        for gauge, counts in ((self._backlog, backlog), (self._set_aside, set_aside)):
            for channel, count in counts.items():
                gauge.labels(channel).set(count)

    def set_drift(self, source: str, evidence: float) -> None:
        """Set the evidence that the scores of a source have changed."""
        self._drift.labels(source).set(evidence)

    def set_kits(self, kits: Iterable[tuple[str, str]]) -> None:
        """Set the active kits: SHA-256 of the manifest, and the backbone, of each."""
        self._kit.clear()
        for kit, backbone in kits:
            self._kit.labels(kit, backbone).set(1)

    def as_text(self) -> bytes:
        """All metrics in the text format of Prometheus. Its content type is prometheus_client.CONTENT_TYPE_LATEST."""
        return generate_latest(self._registry)
