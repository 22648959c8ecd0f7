"""Where triggers come from, as configured."""

from typing import Protocol

from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.triggers.pending import Triggers


class TriggerInput(Protocol):
    """Takes triggers until it is closed."""

    @property
    def failure(self) -> str:
        """Why no triggers can arrive; empty while they can."""
        ...

    def close(self) -> None:
        """Take no more triggers, and deliver the last answers."""
        ...


def open_input(config: StreamConfig, triggers: Triggers) -> TriggerInput | None:
    """Open it. None for a machine, which writes to a server of [line]. UsageError where it cannot be opened."""
    if config.trigger.by == "http":
        from msc_edge.runtime.stream.triggers.http_input import HttpInput  # noqa: PLC0415

        return HttpInput(config.trigger, triggers)
    if config.trigger.by == "mqtt":
        from msc_edge.runtime.stream.triggers.mqtt_input import MqttInput  # noqa: PLC0415

        return MqttInput(config.mqtt, config.station, triggers)
    return None
