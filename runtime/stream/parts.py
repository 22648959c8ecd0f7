"""The parts of a running stream: opens them by the configuration, and changes those that can change while it runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from msc_edge.errors import UsageError
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.station import state_folder
from msc_edge.runtime.stream.active_kit import ActiveKits, KitOptions, KitUse, load_kits
from msc_edge.runtime.stream.alarm import Debounce
from msc_edge.runtime.stream.clock import FILE as CLOCK_FILE
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.drift_watch import DriftWatch, file_of
from msc_edge.runtime.stream.frame import cut
from msc_edge.runtime.stream.journal import EventJournal
from msc_edge.runtime.stream.line.values import LineValues
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.page.feed import PageFeed
from msc_edge.runtime.stream.sinks.delivery import Channel, Delivery
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.sinks.mqtt import MqttChannel
from msc_edge.runtime.stream.sinks.recorder import Recorder
from msc_edge.runtime.stream.sources.address import Address
from msc_edge.runtime.stream.sources.factory import addresses_of, open_source
from msc_edge.runtime.stream.sources.interface import Source
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.statistics import Statistics
from msc_edge.runtime.stream.triggers.pending import TriggeredSource, Triggers
from msc_edge.runtime.stream.window import Window
from msc_edge.runtime.stream.worker import Worker

_RESERVE = 2_000_000  # bytes of the disk of the state that are kept for events
_FRAME_TIMEOUT = 2.0  # seconds to wait for a frame that a new kit must score
_STOP_TIMEOUT = 0.5  # seconds that a delivery has to end before another one replaces it


class Parts:
    """What a stream consists of. Close it."""

    def __init__(self, config: StreamConfig) -> None:
        """Open all parts. Raises SourceError, KitError, UsageError, OutputError."""
        self.folder = state_folder(config.state, station=config.station)
        self.config = config = config.with_images_of_page(self.folder)
        """The active configuration."""
        self.clock = Clock(self.folder / CLOCK_FILE)
        self.statistics = Statistics()
        self.metrics = Metrics()
        self._open = ExitStack()
        self._open.callback(self.clock.save)
        try:
            self._sources = addresses_of(config.source)
            self.names = [name for name, _, _ in self._sources]
            self.live = {name for name, address, _ in self._sources if address.is_live}
            _refuse_saving_into_source(config, [address for _, address, _ in self._sources])
            self._assemble(config)
        except BaseException:
            self._open.close()
            raise

    def _assemble(self, config: StreamConfig) -> None:
        self.kits = ActiveKits(load_kits(self.uses(config), self._kit_options(config)))
        self._set_kit_metric()
        channels = self._channels(config)
        self._state = state = self._open.enter_context(
            State.open(
                self.folder,
                channels=[channel.name for channel in channels],
                max_bytes=1e6 * config.outbox.max_mb,
                max_age=86400 * config.outbox.max_days,
                clock=self.clock,
                reserve=_RESERVE,
            )
        )
        self.outbox = Outbox(state, on_added=self._wake_deliveries)
        self.deliveries = [Delivery(channel, self.outbox) for channel in channels]
        self.journal = EventJournal(
            self.outbox, station=config.station, kits=self.kits, statistics=self.statistics, metrics=self.metrics
        )
        self.recorder = Recorder(config, self.clock)
        self._open.callback(self.recorder.close)
        opened = [
            open_source(
                name,
                address,
                options,
                state=state,
                decode=lambda name=name: self.kits.detector(name).manifest.decode,
                on_restart=self.metrics.add_restart,
            )
            for name, address, options in self._sources
        ]
        for name in self.names:
            self.metrics.add_source(name)
        self.line = LineValues(self.names) if config.line.modbus_port or config.line.opcua_port else None
        self.triggers = self._triggers(opened)
        self.page = PageFeed(len(self.names)) if config.web.port else None
        window = Window(f"msc-edge {config.station}", self.names) if config.show else None
        if window:
            self._open.callback(window.close)
        self.workers = [
            Worker(
                source,
                kits=self.kits,
                debounce=Debounce(config.alarm_of(options)),
                recorder=self.recorder,
                journal=self.journal,
                statistics=self.statistics,
                metrics=self.metrics,
                window=window,
                line=self.line,
                page=self.page,
                drift=self._drift_watch(address, name),
                triggers=self.triggers if address.is_live else None,
                roi=options.roi,
            )
            for source, (name, address, options) in zip(opened, self._sources, strict=True)
        ]

    def _triggers(self, opened: Sequence[Source]) -> Triggers | None:
        """The triggers of the live sources; None where they score on their own."""
        if self.config.trigger.by is None:
            return None
        if not self.live:
            raise UsageError("[trigger] is for cameras and streams, and no source is one; remove it, or add a camera")
        if limited := [name for name, address, options in self._sources if address.is_live and options.max_fps]:
            raise UsageError(f"[trigger]: a frame is scored when it is asked for; remove `max_fps` of {limited[0]}")
        sources = {
            source.name: TriggeredSource(source, options.trigger_delay)
            for source, (_, address, options) in zip(opened, self._sources, strict=True)
            if address.is_live
        }
        return Triggers(sources, timeout=self.config.trigger.timeout, metrics=self.metrics, line=self.line)

    def _drift_watch(self, address: Address, name: str) -> DriftWatch | None:
        """None for a video file: its frames follow each other, and it is scored once."""
        if not self.config.drift.watch or not (address.is_live or address.kind == "folder"):
            return None
        every = self.config.drift.every if address.is_live else None
        if address.is_live and self.config.trigger.by:  # each trigger is about a part
            every = 0.0
        watch = DriftWatch(name, file_of(self.folder, name), every=every, journal=self.journal)
        self._open.callback(watch.save, now=True)
        return watch

    def on_close(self, close: Callable[[], None]) -> None:
        """Call a function before the parts are closed."""
        self._open.callback(close)

    def close(self) -> None:
        """Close all parts."""
        self._open.close()

    def uses(self, config: StreamConfig) -> dict[str, KitUse]:
        """The kit and the limits of each source."""
        return {
            name: KitUse(config.kit_of(options), config.limits_of(options))
            for name, options in zip(self.names, config.source, strict=True)
        }

    def load(self, config: StreamConfig) -> dict[str, Detector]:
        """Open the kits of a new configuration, and score a frame of each live source with them; see `load_kits`."""
        return load_kits(self.uses(config), self._kit_options(config), frames=self._frames(config))

    def apply(self, config: StreamConfig, detectors: dict[str, Detector]) -> None:
        """Make a configuration active that differs in options which need no restart.

        Raises UsageError and OutputError before anything has changed.
        """
        before = self.config
        _refuse_saving_into_source(config, [address for _, address, _ in self._sources])
        sinks_changed = (config.mqtt, config.webhook) != (before.mqtt, before.webhook)
        channels = self._channels(config) if sinks_changed else []
        if config.images != before.images:
            self.recorder.use_images(config.images)
        self.config = config
        self.kits.activate(detectors)
        self._set_kit_metric()
        self._state.max_bytes, self._state.max_age = 1e6 * config.outbox.max_mb, 86400 * config.outbox.max_days
        for worker, options in zip(self.workers, config.source, strict=True):
            worker.use_alarm(config.alarm_of(options))
            if worker.drift:
                worker.drift.start_again()
            worker.roi = options.roi
        if channels:
            self._replace_deliveries(channels)

    def _replace_deliveries(self, channels: Sequence[Channel]) -> None:
        earlier, self.deliveries = self.deliveries, [Delivery(channel, self.outbox) for channel in channels]
        for delivery in earlier:
            delivery.stop(_STOP_TIMEOUT)
        for delivery in self.deliveries:
            delivery.start()

    def _frames(self, config: StreamConfig) -> Iterator[tuple[str, np.ndarray]]:
        """A frame of each live source that has one now, cut as a new configuration wants. SourceError if it cannot."""
        for worker, options in zip(self.workers, config.source, strict=True):
            name = worker.source.name
            if name in self.live and self.statistics.condition(name) in ("source_up", "not_scored"):
                frame = worker.copy_frame(_FRAME_TIMEOUT)
                if frame is not None:
                    yield name, cut(frame, options.roi) if options.roi else frame

    def _kit_options(self, config: StreamConfig) -> KitOptions:
        threads = config.threads or max(1, usable_cores() // len(self._sources))
        return KitOptions(threads, config.precision, config.backend, config.trusted_key)

    def _channels(self, config: StreamConfig) -> list[Channel]:
        channels: list[Channel] = []
        if config.mqtt.host:
            channels.append(MqttChannel(config.mqtt, config.station, self.names))
        if config.webhook.url:
            from msc_edge.runtime.stream.sinks.webhook import WebhookChannel  # noqa: PLC0415  (requests takes 0.1 s)

            channels.append(WebhookChannel(config.webhook))
        return channels

    def _set_kit_metric(self) -> None:
        self.metrics.set_kits((each.kit.sha256, each.manifest.network.backbone) for each in self.kits.all())

    def _wake_deliveries(self) -> None:
        for delivery in self.deliveries:
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
