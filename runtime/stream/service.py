"""`msc-edge stream`: the parts put together, and watched over for months."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.stream.active_kit import ActiveKit
from msc_edge.runtime.stream.alarm import Debounce
from msc_edge.runtime.stream.config import SourceConfig, StreamConfig, state_folder
from msc_edge.runtime.stream.control import answer, take_requests
from msc_edge.runtime.stream.events import Event, EventKind, new_id, now, rejection
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.notify import notify
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.delivery import Channel, Delivery
from msc_edge.runtime.stream.sinks.mqtt import MqttChannel
from msc_edge.runtime.stream.sinks.recorder import Recorder
from msc_edge.runtime.stream.sinks.status_server import Metrics, StatusServer
from msc_edge.runtime.stream.sinks.webhook import WebhookChannel
from msc_edge.runtime.stream.sources.address import Address
from msc_edge.runtime.stream.sources.factory import addresses_of, open_source
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.statistics import Statistics
from msc_edge.runtime.stream.window import Window
from msc_edge.runtime.stream.worker import Worker
from msc_edge.text import valid_text

_ROUND = 0.25  # seconds between two rounds of the watch
_ACCOUNTS = 10.0  # seconds between two looks at what was lost
_STANDS = 30.0  # seconds without a turn of its loop after which a source counts as stuck
_TO_END = 1.2  # seconds that the sources have to finish their frames
_LEVELS: dict[EventKind, int] = {
    "source_lost": logging.WARNING,
    "source_frozen": logging.WARNING,
    "kit_refused": logging.ERROR,
    "results_lost": logging.ERROR,
    "events_lost": logging.ERROR,
}


class Stream:
    """One process, several sources, one model. Make it, `run` it, and `stop` it from a signal handler."""

    def __init__(self, config: StreamConfig) -> None:
        """Open everything; the errors are those of the parts, and name what is wrong.

        Raises SourceError, KitError, UsageError, OutputError.
        """
        self._config = config
        self._folder = state_folder(config)
        self._stopping = threading.Event()
        self._reloading = threading.Event()
        self.statistics = Statistics()
        self.metrics = Metrics()
        self._open = ExitStack()
        try:
            sources = addresses_of(config.source)
            _refuse_images_of_images(config, [address for _, address, _ in sources])
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
        self._tell_metrics_of_kit()
        channels = self._channels([name for name, _, _ in sources])
        state = self._open.enter_context(
            State.open(
                self._folder,
                channels=[channel.name for channel in channels],
                max_bytes=1e6 * config.outbox.max_mb,
                max_age=86400 * config.outbox.max_days,
            )
        )
        self._deliveries = [Delivery(channel, state) for channel in channels]
        self._outbox = Outbox(state, recorded=self._wake)
        self._recorder = Recorder(config)
        self._open.callback(self._recorder.close)
        self._workers = [
            Worker(
                open_source(
                    name,
                    address,
                    options,
                    state=state,
                    decode=lambda: self._kit.detector.manifest.decode,
                    restarted=self.metrics.restarted,
                ),
                detector=lambda: self._kit.detector,
                debounce=Debounce(config.alarm.after.m, config.alarm.after.n, config.alarm.cooldown),
                recorder=self._recorder,
                outbox=self._outbox,
                reject=self._reject,
                tell=self._tell,
                decided=self._decided,
            )
            for name, address, options in sources
        ]
        self._live = {name for name, address, _ in sources if address.is_live}
        for name, _, _ in sources:
            self.metrics.source(name)
        if config.http.port:
            server = StatusServer(config.http.host, config.http.port, self.metrics, ready=self.not_ready)
            self._open.callback(server.close)
        self._window = Window(f"msc-edge {config.station}") if config.show else None
        if self._window:
            self._open.callback(self._window.close)

    def _channels(self, sources: Sequence[str]) -> list[Channel]:
        channels: list[Channel] = []
        if self._config.mqtt.host:
            channels.append(MqttChannel(self._config.mqtt, self._config.station, sources))
        if self._config.webhook.url:
            channels.append(WebhookChannel(self._config.webhook))
        return channels

    # -- while it runs

    def run(self, status: Callable[[str], None] | None = None) -> bool:
        """Score until all sources end or `stop` is called; whether nothing went wrong that is ours.

        `status` takes the line of status, four times a second.
        """
        for delivery in self._deliveries:
            delivery.start()
        self._emit("started", f"scoring with {self._kit.path}")
        for worker in self._workers:
            worker.start()
        notify("READY=1")
        try:
            self._watch(status or (lambda _: None))
        finally:
            self._end()
        return not any(worker.failure for worker in self._workers)

    def stop(self) -> None:
        """Finish the frames that are being scored, write and deliver what can be, and end, within two seconds."""
        self._stopping.set()

    def reload(self) -> None:
        """Load the kit again; see `ActiveKit.reload`."""
        self._reloading.set()

    def _watch(self, status: Callable[[str], None]) -> None:
        accounts = time.monotonic()
        watchdog = 0.0
        while not self._stopping.wait(_ROUND) and any(worker.is_alive() for worker in self._workers):
            moment = time.monotonic()
            asked = take_requests(self._folder)
            if asked or self._reloading.is_set():
                self._reloading.clear()
                self._begin_reload(asked)
            self._outbox.retry()
            depth = self._outbox.depth()
            self.metrics.outbox(depth)
            status(self.statistics.line(outbox=sum(depth.values())))
            if moment - accounts >= _ACCOUNTS:
                accounts = moment
                self._account()
            if moment - watchdog >= 1 and not self._stuck():
                watchdog = moment
                notify("WATCHDOG=1")

    def _end(self) -> None:
        notify("STOPPING=1")
        for worker in self._workers:
            worker.close()
        until = time.monotonic() + _TO_END
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        self._account()
        self._emit("stopped", "stopped on request" if self._stopping.is_set() else "all sources have ended")
        self._outbox.retry()
        begun = time.monotonic()
        for delivery in self._deliveries:
            delivery.stop(max(0.1, begun + 0.5 - time.monotonic()))
        self._open.close()

    def _stuck(self) -> list[str]:
        """Sources whose loop stands: frames do not progress, and nobody said that the source is lost."""
        moment = time.monotonic()
        return [
            worker.source.name
            for worker in self._workers
            if (worker.is_alive() and moment - worker.turned > _STANDS) or worker.failure
        ]

    def not_ready(self) -> list[str]:
        """Why a supervisor should not count on this stream; empty when it can."""
        reasons = [f"source {name}: its loop stands" for name in self._stuck()]
        for name in sorted(self._live):
            age = self.statistics.age_of_last(name)
            if age is None:
                reasons.append(f"source {name}: no frame yet")
            elif age > self._config.http.ready_within:
                reasons.append(f"source {name}: the last frame is {age:.0f} s old")
        if self._outbox.is_full:
            reasons.append("the outbox is full, or its disk")
        return reasons

    # -- what the workers tell

    def _decided(self, decision: Decision) -> None:
        self.statistics.decided(decision)
        self.metrics.decided(decision)
        if self._window:
            self._window.show(decision)

    def _tell(self, source: str, kind: EventKind, words: str, seconds: float | None) -> None:
        self._emit(kind, words, source=source, seconds=seconds)

    def _reject(self, decision: Decision, image: Path | None) -> Event:
        event = rejection(decision, image, station=self._config.station, kit=self._kit.sha256)
        self._count(event)
        return event

    def _emit(self, kind: EventKind, words: str, *, source: str | None = None, **fields: int | float | None) -> None:
        event = Event(
            id=new_id(),
            kind=kind,
            time=now(),
            station=self._config.station,
            source=source,
            message=valid_text(f"{source}: {words}" if source else words),
            kit=self._kit.sha256,
            **fields,  # pyright: ignore[reportArgumentType]
        )
        self._count(event)
        self._outbox.put([event])

    def _count(self, event: Event) -> None:
        self.statistics.happened(event.kind)
        self.metrics.event(event)
        LOG.log(
            _LEVELS.get(event.kind, logging.INFO),
            "%s: %s",
            event.kind,
            event.message,
            extra={"fields": event.model_dump(mode="json", exclude_none=True, exclude={"message", "schema_version"})},
        )

    def _wake(self) -> None:
        for delivery in self._deliveries:
            delivery.wake()

    # -- accounts and kits

    def _account(self) -> None:
        """OnEvent of what was lost since the last time."""
        lost, reasons = self._recorder.take_lost()
        if lost:
            self._emit("results_lost", "; ".join(reasons), count=lost)
        if events := self._outbox.take_lost():
            self._emit(
                "events_lost", f"{events} events were dropped: the outbox was full, or they were old", count=events
            )

    def _begin_reload(self, asked: Sequence[str]) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

        def finished(loaded: bool, words: str) -> None:
            self._tell_metrics_of_kit()
            self._emit("kit_loaded" if loaded else "kit_refused", words)
            notify("READY=1")
            for each in asked:
                try:
                    answer(self._folder, each, loaded=loaded, words=words)
                except OutputError as error:
                    LOG.error("a reload was asked for, and the answer cannot be given: %s", error)

        self._kit.reload(finished)

    def _tell_metrics_of_kit(self) -> None:
        self.metrics.kit(self._kit.sha256, self._kit.detector.manifest.model.backbone)


def _refuse_images_of_images(config: StreamConfig, addresses: Sequence[Address]) -> None:
    """Images that are saved in a folder that is watched would be scored, and saved, and scored."""
    saved = config.images.folder
    for address in addresses:
        if saved and address.kind == "folder" and saved.resolve().is_relative_to(Path(address.given).resolve()):
            raise UsageError(
                f"the folder of saved images, {saved}, lies in {address.given}, which is watched: "
                "they would be scored again; choose another folder for them"
            )
