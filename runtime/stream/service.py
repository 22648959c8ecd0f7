"""The service behind `msc-edge stream`: runs the parts of a stream, watches them, reloads them, and ends."""

import threading
import time
from collections.abc import Callable, Sequence

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.config_toml import config_as_toml
from msc_edge.runtime.stream.control import answer, take_requests
from msc_edge.runtime.stream.line.values import State
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.notify import notify
from msc_edge.runtime.stream.page.process import PageProcess, require_web
from msc_edge.runtime.stream.page.snapshot import StationStatus
from msc_edge.runtime.stream.page.status import station_status
from msc_edge.runtime.stream.parts import Parts
from msc_edge.runtime.stream.reloading import Reloader, ReloadResult
from msc_edge.runtime.stream.scoring_watch import ScoringWatch
from msc_edge.runtime.stream.sinks.status_server import StatusServer
from msc_edge.runtime.stream.sources.outage import Outage
from msc_edge.runtime.stream.triggers.inputs import open_input

_WATCH_INTERVAL = 0.25  # seconds between two rounds of the watch
_LOSS_INTERVAL = 10.0  # seconds between two reports of lost results and events
_STALLED_AFTER = 30.0  # seconds without activity after which a source counts as stalled
_JOIN_TIMEOUT = 1.2  # seconds that the sources have to finish their frames
_DELIVERY_TIMEOUT = 0.5  # seconds that the deliveries have at the end
_LAST_ROWS_TIMEOUT = 0.5  # seconds to write rows that waited, if the disk takes them again
_LAST_DELIVERY_TIMEOUT = 5.0  # the same when events are in memory only


class Stream:
    """One process, several sources and kits. Create it, `run` it, and `stop` it from a signal handler."""

    def __init__(self, config: StreamConfig, *, reread: Callable[[], StreamConfig] | None = None) -> None:
        """Open all parts. Raises SourceError, KitError, UsageError, OutputError.

        `reread` gives the configuration as it is now, for a reload; by default it stays as it is.
        """
        if config.web.port:
            require_web()  # before anything is opened
        self._stopping = threading.Event()
        self._reloading = threading.Event()
        self._parts = parts = Parts(config)
        self._reloader = Reloader(parts, reread=reread or (lambda: config))
        self._scoring = ScoringWatch(parts.statistics, parts.journal)
        try:
            if config.http.port:  # last: it asks whether the stream is ready
                server = StatusServer(config.http.host, config.http.port, parts.metrics, not_ready=self.not_ready)
                parts.on_close(server.close)
            if parts.page:
                page = PageProcess(
                    config.web,
                    parts.folder,
                    parts.page,
                    station=config.station,
                    status=self._status,
                    metrics=parts.metrics.as_text,
                )
                parts.on_close(page.close)
            if parts.line:
                # pymodbus and asyncua take half a second to import, and are an extra.
                from msc_edge.runtime.stream.line.servers import open_line  # noqa: PLC0415

                parts.on_close(open_line(config, parts.line, parts.triggers).close)
            self._trigger_input = open_input(config, parts.triggers) if parts.triggers else None
            if self._trigger_input:
                parts.on_close(self._trigger_input.close)
        except BaseException:
            parts.close()
            raise

    def run(self, on_status: Callable[[str], None] | None = None) -> bool:
        """Score until all sources end or `stop` is called. False when an internal error ended a source.

        `on_status` takes the status line, four times a second. OutputError when rows or events are lost at the end,
        because they could not be written, nor the events delivered.
        """
        parts = self._parts
        for delivery in parts.deliveries:
            delivery.start()
        kits = ", ".join(dict.fromkeys(str(use.path) for use in parts.uses(parts.config).values()))
        asked = f"; cameras score a frame when asked for one, by {parts.config.trigger.by}" if parts.triggers else ""
        parts.journal.report("started", f"scoring with {kits}{asked}")
        for worker in parts.workers:
            worker.start()
        notify("READY=1")
        try:
            self._watch(on_status or (lambda _: None))
        finally:
            self._end()
        return not any(worker.failure for worker in parts.workers)

    def stop(self) -> None:
        """Finish the current frames, write and deliver what is possible, and end, within two seconds."""
        self._stopping.set()

    def reload(self) -> None:
        """Load the configuration and the kits again; see `Reloader`."""
        self._reloading.set()

    def not_ready(self) -> list[str]:
        """The reasons why the stream is not ready; empty when it is. Called from several threads."""
        parts = self._parts
        reasons = [f"source {name}: stalled" for name in self._stalled_sources()]
        outages = self._outages()
        for name in parts.names:
            age = parts.statistics.seconds_since_scored(name)
            if reason := self._scoring.not_ready(name):
                reasons.append(f"source {name}: {reason}")
            elif name not in parts.live or parts.triggers:  # nothing is scored while nobody asks
                if name in outages:
                    reasons.append(f"source {name}: {outages[name]}")
            elif age is None or age > parts.config.http.ready_within:
                last = "no frame was scored yet" if age is None else f"the last scored frame is {age:.0f} s old"
                reasons.append(f"source {name}: {outages.get(name) or last}")
        for worker in parts.workers:
            if reason := worker.source.partial_outage:
                reasons.append(f"source {worker.source.name}: {reason}; images there are not inspected")
        if self._trigger_input and self._trigger_input.failure:
            reasons.append(f"no triggers arrive: {self._trigger_input.failure}")
        reasons += parts.kits.failures
        if failure := parts.recorder.failure:
            reasons.append(f"{parts.recorder.waiting} rows wait in memory: {failure}")
        if parts.outbox.is_full:
            reasons.append("the outbox or its disk is full")
        for delivery in parts.deliveries:
            if count := delivery.set_aside:
                reasons.append(f"{delivery.name}: {count} events are set aside: {delivery.failure}")
        return reasons

    def _watch(self, on_status: Callable[[str], None]) -> None:
        parts = self._parts
        losses_reported = time.monotonic()
        watchdog = 0.0
        while not self._stopping.wait(_WATCH_INTERVAL) and any(worker.is_alive() for worker in parts.workers):
            moment = time.monotonic()
            self._take_requests()
            for change in parts.kits.learn():
                kind = "learned" if change.used else "learned_refused"
                parts.journal.report(kind, change.message, count=change.count)
            parts.clock.counted()  # a step of the clock is recorded soon
            for name, options in zip(parts.names, parts.config.source, strict=True):
                self._scoring.look(name, options.not_scored_after)
            if parts.line:
                parts.line.beat(self._states(), ready=not self.not_ready())
            parts.recorder.retry()
            parts.outbox.retry()
            for worker in parts.workers:
                if worker.drift:
                    worker.drift.save()
                    parts.metrics.set_drift(worker.source.name, worker.drift.evidence)
            backlog, rows = parts.outbox.backlog(), parts.recorder.waiting
            parts.metrics.set_backlog(backlog, {each.name: each.set_aside for each in parts.deliveries}, rows=rows)
            on_status(parts.statistics.status_line(outbox=sum(backlog.values()), rows=rows, outages=self._outages()))
            if moment - losses_reported >= _LOSS_INTERVAL:
                losses_reported = moment
                self._report_losses()
            if moment - watchdog >= 1 and not self._stalled_sources():
                watchdog = moment
                notify("WATCHDOG=1")

    def _end(self) -> None:
        notify("STOPPING=1")
        parts = self._parts
        for worker in parts.workers:
            worker.close()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for worker in parts.workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            worker.report_suppressed()  # it does so itself, unless it hangs
        if parts.triggers:
            parts.triggers.close()
        failure = parts.recorder.failure
        lost_rows = parts.recorder.drop_waiting(timeout=_LAST_ROWS_TIMEOUT)
        self._report_losses()
        parts.journal.report("stopped", "stopped on request" if self._stopping.is_set() else "all sources have ended")
        deadline = time.monotonic() + (_LAST_DELIVERY_TIMEOUT if parts.outbox.unwritten() else _DELIVERY_TIMEOUT)
        for delivery in parts.deliveries:
            delivery.stop(max(0.1, deadline - time.monotonic()))
        parts.outbox.retry()
        lost_events = parts.outbox.unwritten()
        parts.close()
        losses = []
        if lost_rows:
            losses.append(
                f"{lost_rows} rows are lost: {failure}. Image files without a row are scored again at the next start"
            )
        if lost_events:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(lost_events.items()))
            losses.append(
                f"{sum(lost_events.values())} events are lost ({kinds}): {parts.folder} takes nothing, and they could "
                "not be delivered; free some space there. The log has them"
            )
        if losses:
            raise OutputError("; ".join(losses))

    def _outages(self) -> dict[str, Outage]:
        """The sources without frames."""
        found = {worker.source.name: worker.source.outage for worker in self._parts.workers}
        return {name: outage for name, outage in found.items() if outage is not None}

    def _states(self) -> dict[str, State]:
        """The state of each source, for a machine."""
        outages, stalled = self._outages(), self._stalled_sources()
        found: dict[str, State] = {}
        for worker in self._parts.workers:
            name = worker.source.name
            if not worker.is_alive():
                found[name] = "ended"
            elif name in outages or name in stalled:
                found[name] = "no_frames"
            elif self._scoring.not_ready(name):
                found[name] = "not_scored"
            else:
                # With triggers `running` says that frames come: they are scored when somebody asks.
                waiting = not self._parts.triggers and self._parts.statistics.seconds_since_scored(name) is None
                found[name] = "waiting" if waiting else "running"
        return found

    def _status(self) -> StationStatus:
        """The state of the stream, for its page."""
        reasons = {name: reason for name in self._parts.names if (reason := self._scoring.not_ready(name))}
        reasons |= dict.fromkeys(self._stalled_sources(), "stalled")
        reasons |= {name: str(outage) for name, outage in self._outages().items()}
        return station_status(self._parts, states=self._states(), reasons=reasons, not_ready=self.not_ready())

    def _stalled_sources(self) -> list[str]:
        """Sources whose loop has stopped, by an internal error or by a call that does not return."""
        moment = time.monotonic()
        return [
            worker.source.name
            for worker in self._parts.workers
            if (worker.is_alive() and moment - worker.last_activity > _STALLED_AFTER) or worker.failure
        ]

    def _report_losses(self) -> None:
        """Report the results and events lost since the last report."""
        journal = self._parts.journal
        results, reasons = self._parts.recorder.take_lost()
        if results:
            journal.report("results_lost", "; ".join(reasons), count=results)
        if events := self._parts.outbox.take_dropped():
            journal.report(
                "events_lost", f"{events} events were dropped: the outbox was full, or they were too old", count=events
            )

    def _take_requests(self) -> None:
        for request in take_requests(self._parts.folder, "config"):
            self._answer(request, done=True, message=config_as_toml(self._parts.config))
        requests = take_requests(self._parts.folder, "reload")
        if requests or self._reloading.is_set():
            self._reloading.clear()
            self._start_reload(requests)

    def _start_reload(self, requests: Sequence[str]) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

        def on_finished(result: ReloadResult) -> None:
            self._parts.journal.report("kit_loaded" if result.loaded else "kit_refused", result.message)
            notify("READY=1")
            for request in requests:
                self._answer(request, done=result.loaded, message=result.message)

        self._reloader.start(on_finished)

    def _answer(self, request: str, *, done: bool, message: str) -> None:
        try:
            answer(self._parts.folder, request, done=done, message=message)
        except OutputError as error:
            LOG.error("the answer to a request cannot be written: %s", error)
