"""The service behind `msc-edge stream`: assembles the parts of a stream, watches them, reloads the kit, and ends."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.station import state_folder
from msc_edge.runtime.stream.active_kit import ActiveKit, ReloadResult
from msc_edge.runtime.stream.alarm import Debounce
from msc_edge.runtime.stream.clock import FILE as CLOCK_FILE
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.config import SourceConfig, StreamConfig
from msc_edge.runtime.stream.control import answer, take_requests
from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.notify import notify
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.delivery import Channel, Delivery
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sinks.mqtt import MqttChannel
from msc_edge.runtime.stream.sinks.recorder import Recorder
from msc_edge.runtime.stream.sinks.status_server import StatusServer
from msc_edge.runtime.stream.sinks.webhook import WebhookChannel
from msc_edge.runtime.stream.sources.address import Address
from msc_edge.runtime.stream.sources.factory import addresses_of, open_source
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.statistics import Statistics
from msc_edge.runtime.stream.window import Window
from msc_edge.runtime.stream.worker import Worker

_WATCH_INTERVAL = 0.25  # seconds between two rounds of the watch
_LOSS_INTERVAL = 10.0  # seconds between two reports of lost results and events
_STALLED_AFTER = 30.0  # seconds without activity after which a source counts as stalled
_RESERVE = 2_000_000  # bytes of the disk of the state that are kept for events
_DELIVERY_TIMEOUT = 0.5  # seconds that the deliveries have at the end
_LAST_DELIVERY_TIMEOUT = 5.0  # the same when events are in memory only
_JOIN_TIMEOUT = 1.2  # seconds that the sources have to finish their frames


class Stream:
    """One process, several sources, one kit. Create it, `run` it, and `stop` it from a signal handler."""

    def __init__(self, config: StreamConfig) -> None:
        """Open all parts. Raises SourceError, KitError, UsageError, OutputError."""
        self._config = config
        self._folder = state_folder(config.state, station=config.station)
        self._clock = Clock(self._folder / CLOCK_FILE)
        self._stopping = threading.Event()
        self._reloading = threading.Event()
        self.statistics = Statistics()
        self.metrics = Metrics()
        self._open = ExitStack()
        try:
            sources = addresses_of(config.source)
            _refuse_saving_into_source(config, [address for _, address, _ in sources])
            self._assemble(sources)
        except BaseException:
            self._open.close()
            raise

    def _assemble(self, sources: Sequence[tuple[str, Address, SourceConfig]]) -> None:
        config = self._config
        threads = config.threads or max(1, usable_cores() // len(sources))
        self._kit = ActiveKit(
            config.kit, threads=threads, limits=config.limits, precision=config.precision, backend=config.backend
        )
        self._set_kit_metric(self._kit.detector)
        channels = self._channels([name for name, _, _ in sources])
        state = self._open.enter_context(
            State.open(
                self._folder,
                channels=[channel.name for channel in channels],
                max_bytes=1e6 * config.outbox.max_mb,
                max_age=86400 * config.outbox.max_days,
                clock=self._clock,
                reserve=_RESERVE,
            )
        )
        self._outbox = Outbox(state, on_added=self._wake_deliveries)
        self._deliveries = [Delivery(channel, self._outbox) for channel in channels]
        self._journal = EventJournal(
            self._outbox,
            station=config.station,
            active_kit=self._kit,
            statistics=self.statistics,
            metrics=self.metrics,
        )
        self._recorder = Recorder(config, self._clock)
        self._open.callback(self._recorder.close)
        opened = [
            open_source(
                name,
                address,
                options,
                state=state,
                decode=lambda: self._kit.detector.manifest.decode,
                on_restart=self.metrics.add_restart,
            )
            for name, address, options in sources
        ]
        self._live = {name for name, address, _ in sources if address.is_live}
        for name, _, _ in sources:
            self.metrics.add_source(name)
        window = Window(f"msc-edge {config.station}") if config.show else None
        if window:
            self._open.callback(window.close)
        self._workers = [
            Worker(
                source,
                active_kit=self._kit,
                debounce=Debounce(config.alarm.after.m, config.alarm.after.n, config.alarm.cooldown),
                recorder=self._recorder,
                journal=self._journal,
                statistics=self.statistics,
                metrics=self.metrics,
                window=window,
            )
            for source in opened
        ]
        if config.http.port:  # last: it asks the workers whether the stream is ready
            server = StatusServer(config.http.host, config.http.port, self.metrics, not_ready=self.not_ready)
            self._open.callback(server.close)

    def _channels(self, sources: Sequence[str]) -> list[Channel]:
        channels: list[Channel] = []
        if self._config.mqtt.host:
            channels.append(MqttChannel(self._config.mqtt, self._config.station, sources))
        if self._config.webhook.url:
            channels.append(WebhookChannel(self._config.webhook))
        return channels

    def run(self, on_status: Callable[[str], None] | None = None) -> bool:
        """Score until all sources end or `stop` is called. False when an internal error ended a source.

        `on_status` takes the status line, four times a second. OutputError when events are lost at the end, because
        they could be neither written nor delivered.
        """
        for delivery in self._deliveries:
            delivery.start()
        self._journal.report("started", f"scoring with {self._kit.path}")
        for worker in self._workers:
            worker.start()
        notify("READY=1")
        try:
            self._watch(on_status or (lambda _: None))
        finally:
            self._end()
        return not any(worker.failure for worker in self._workers)

    def stop(self) -> None:
        """Finish the current frames, write and deliver what is possible, and end, within two seconds."""
        self._stopping.set()

    def reload(self) -> None:
        """Load the kit again; see `ActiveKit.reload`."""
        self._reloading.set()

    def not_ready(self) -> list[str]:
        """The reasons why the stream is not ready; empty when it is. Called from several threads."""
        reasons = [f"source {name}: stalled" for name in self._stalled_sources()]
        for name in sorted(self._live):
            age = self.statistics.seconds_since_last(name)
            if age is None:
                reasons.append(f"source {name}: no frame yet")
            elif age > self._config.http.ready_within:
                reasons.append(f"source {name}: the last frame is {age:.0f} s old")
        if self._outbox.is_full:
            reasons.append("the outbox or its disk is full")
        for delivery in self._deliveries:
            if count := delivery.set_aside:
                reasons.append(f"{delivery.name}: {count} events are set aside: {delivery.failure}")
        return reasons

    def _watch(self, on_status: Callable[[str], None]) -> None:
        losses_reported = time.monotonic()
        watchdog = 0.0
        while not self._stopping.wait(_WATCH_INTERVAL) and any(worker.is_alive() for worker in self._workers):
            moment = time.monotonic()
            requests = take_requests(self._folder)
            if requests or self._reloading.is_set():
                self._reloading.clear()
                self._start_reload(requests)
            self._clock.now()  # a step of the clock is recorded soon
            self._outbox.retry()
            backlog = self._outbox.backlog()
            self.metrics.set_backlog(backlog)
            for delivery in self._deliveries:
                self.metrics.set_set_aside(delivery.name, delivery.set_aside)
            on_status(self.statistics.status_line(outbox=sum(backlog.values())))
            if moment - losses_reported >= _LOSS_INTERVAL:
                losses_reported = moment
                self._report_losses()
            if moment - watchdog >= 1 and not self._stalled_sources():
                watchdog = moment
                notify("WATCHDOG=1")

    def _end(self) -> None:
        notify("STOPPING=1")
        for worker in self._workers:
            worker.close()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._report_losses()
        self._journal.report("stopped", "stopped on request" if self._stopping.is_set() else "all sources have ended")
        deadline = time.monotonic() + (_LAST_DELIVERY_TIMEOUT if self._outbox.unwritten() else _DELIVERY_TIMEOUT)
        for delivery in self._deliveries:
            delivery.stop(max(0.1, deadline - time.monotonic()))
        self._outbox.retry()
        lost = self._outbox.unwritten()
        self._open.close()
        if lost:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(lost.items()))
            raise OutputError(
                f"{sum(lost.values())} events are lost ({kinds}): {self._folder} takes nothing, and they could not be "
                "delivered; free some space there. The log and the rows have them"
            )

    def _stalled_sources(self) -> list[str]:
        """Sources whose loop has stopped, by an internal error or by a call that does not return."""
        moment = time.monotonic()
        return [
            worker.source.name
            for worker in self._workers
            if (worker.is_alive() and moment - worker.last_activity > _STALLED_AFTER) or worker.failure
        ]

    def _report_losses(self) -> None:
        """Report the results and events lost since the last report."""
        results, reasons = self._recorder.take_lost()
        if results:
            self._journal.report("results_lost", "; ".join(reasons), count=results)
        if events := self._outbox.take_dropped():
            self._journal.report(
                "events_lost", f"{events} events were dropped: the outbox was full, or they were too old", count=events
            )

    def _start_reload(self, requests: Sequence[str]) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

        def on_finished(result: ReloadResult) -> None:
            if result.loaded:
                self._set_kit_metric(result.detector)
            kind = "kit_loaded" if result.loaded else "kit_refused"
            self._journal.report(kind, result.message, kit=result.detector.kit.sha256)
            notify("READY=1")
            for request in requests:
                try:
                    answer(self._folder, request, loaded=result.loaded, message=result.message)
                except OutputError as error:
                    LOG.error("a reload was requested, and its result cannot be written: %s", error)

        self._kit.reload(on_finished)

    def _set_kit_metric(self, detector: Detector) -> None:
        self.metrics.set_kit(detector.kit.sha256, detector.manifest.network.backbone)

    def _wake_deliveries(self) -> None:
        for delivery in self._deliveries:
            delivery.wake()


def _refuse_saving_into_source(config: StreamConfig, addresses: Sequence[Address]) -> None:
    """Images saved in a watched folder would be scored, saved again, and so on."""
    saved = config.images.folder
    for address in addresses:
        if saved and address.kind == "folder" and saved.resolve().is_relative_to(Path(address.given).resolve()):
            raise UsageError(
                f"the folder of saved images, {saved}, is inside the watched folder {address.given}: "
                "saved images would be scored again; choose another folder for them"
            )
