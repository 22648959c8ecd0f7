"""Every option of `msc-edge stream`, named as in the TOML file. Unknown names are refused; see config_file.py."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator
from pydantic import NonNegativeFloat as Seconds

from msc_edge.kit.manifest import Precision
from msc_edge.preprocessing import Region
from msc_edge.runtime.backends.interface import BackendChoice
from msc_edge.runtime.station import default_station
from msc_edge.runtime.stream.config_sections import (
    AlarmConfig,
    DriftConfig,
    HttpConfig,
    ImagesConfig,
    LimitsConfig,
    LineConfig,
    LogConfig,
    MqttConfig,
    Name,
    OutboxConfig,
    ResultsConfig,
    Section,
    Timeout,
    TriggerConfig,
    WebConfig,
    WebhookConfig,
)


def _parse_roi(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split(",")
    if len(parts) != 4:
        raise ValueError("expected X,Y,WIDTH,HEIGHT in pixels")
    return dict(zip(("x", "y", "width", "height"), parts, strict=True))


class SourceConfig(Section):
    """One `[[source]]`."""

    address: SecretStr = Field(
        min_length=1,
        description="webcam number, /dev/videoN, rtsp:// or http(s):// stream, video file, or folder of new images",
    )
    name: Name | None = Field(default=None, description="in results and events; derived from the address by default")
    username: str | None = Field(default=None, min_length=1, description="network: user, instead of one in the address")
    password: SecretStr | None = Field(default=None, description="network: password of `username`")
    ca_file: Path | None = Field(
        default=None, description="https, rtsps: certificate authority, if it is not a public one"
    )
    insecure: bool = Field(default=False, description="https, rtsps: accept any certificate")
    max_fps: PositiveFloat | None = Field(default=None, description="live: score at most this many frames a second")
    trigger_delay: Seconds = Field(
        default=0, description="live, with [trigger]: seconds from the trigger until frames arrive that show the part"
    )
    lost_after: PositiveFloat = Field(default=20, description="live: seconds without a frame until source_lost")
    frozen_after: Seconds = Field(
        default=20, description="live: seconds of one repeated frame until source_frozen; 0 never"
    )
    open_timeout: Timeout = Field(default=5, description="live: seconds")
    read_timeout: Timeout = Field(default=5, description="live: seconds")
    width: PositiveInt | None = Field(default=None, description="webcam: requested width in pixels")
    height: PositiveInt | None = Field(default=None, description="webcam: requested height in pixels")
    fps: PositiveFloat | None = Field(default=None, description="webcam: requested frames a second")
    settle: PositiveFloat = Field(
        default=0.5,
        description="folder: seconds without a change until JPEG, PNG or WebP is complete; four times for others",
    )
    not_scored_after: Seconds = Field(
        default=20, description="seconds without a scored frame, while frames arrive, until not_scored; 0 never"
    )
    kit: Path | None = Field(default=None, description="a kit of its own")
    roi: Annotated[Region | None, BeforeValidator(_parse_roi)] = Field(
        default=None, description="use this part of each frame only: X,Y,WIDTH,HEIGHT in pixels"
    )
    limits: LimitsConfig | None = Field(default=None, description="replaces [limits]")
    alarm: AlarmConfig | None = Field(default=None, description="options that are set here replace those of [alarm]")

    @model_validator(mode="after")
    def _login_is_complete(self) -> "SourceConfig":
        if self.password is not None and self.username is None:
            raise ValueError("`password` needs `username`")
        return self


class StreamConfig(Section):
    """The whole file."""

    kit: Path | None = None
    station: Name = Field(
        default_factory=default_station, description="name of this PC or line; the host name by default"
    )
    state: Path | None = Field(
        default=None,
        description="folder of the outbox and the processed files; by default $STATE_DIRECTORY or a folder of the user",
    )
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="cores per frame; by default all usable ones, divided by the number of sources"
    )
    precision: Precision | None = Field(
        default=None,
        description="which of the kit's models scores; by default the kit's default model",
    )
    backend: BackendChoice = Field(
        default="auto", description="runs the model; auto: OpenVINO if it is installed and faster for fp32"
    )
    trusted_key: Path | None = Field(
        default=None,
        description="a public key, or a folder of them (*.pub); kits that none of them has signed are refused",
    )
    show: bool = Field(default=False, description="open a window with the frame, its score and its verdict")
    source: list[SourceConfig] = Field(min_length=1)
    limits: LimitsConfig = LimitsConfig()
    alarm: AlarmConfig = AlarmConfig()
    results: ResultsConfig = ResultsConfig()
    images: ImagesConfig = ImagesConfig()
    mqtt: MqttConfig = MqttConfig()
    webhook: WebhookConfig = WebhookConfig()
    outbox: OutboxConfig = OutboxConfig()
    drift: DriftConfig = DriftConfig()
    http: HttpConfig = HttpConfig()
    web: WebConfig = WebConfig()
    line: LineConfig = LineConfig()
    trigger: TriggerConfig = TriggerConfig()
    log: LogConfig = LogConfig()

    @field_validator("precision", mode="before")
    @classmethod
    def _auto_is_deprecated(cls, value: object) -> object:
        return None if value == "auto" else value

    @model_validator(mode="after")
    def _each_source_has_a_kit(self) -> "StreamConfig":
        if self.kit is None and any(source.kit is None for source in self.source):
            raise ValueError("kit: is missing; name a kit")
        return self

    @model_validator(mode="after")
    def _a_trigger_can_be_received(self) -> "StreamConfig":
        by = self.trigger.by
        needed = {
            "mqtt": ("host` in [mqtt", self.mqtt.host),
            "modbus": ("modbus_port` in [line", self.line.modbus_port),
            "opcua": ("opcua_port` in [line", self.line.opcua_port),
        }
        if by in needed and not needed[by][1]:
            raise ValueError(f"trigger.by: {by} needs `{needed[by][0]}]")
        for source in self.source if by else []:
            if source.trigger_delay >= self.trigger.timeout:
                raise ValueError("trigger.timeout: must be longer than `trigger_delay` of each source")
        return self

    def kit_of(self, source: SourceConfig) -> Path:
        """The kit of a source."""
        kit = source.kit or self.kit
        assert kit is not None, "checked above"
        return kit

    def limits_of(self, source: SourceConfig) -> LimitsConfig:
        """The limits of a source."""
        return source.limits or self.limits

    def alarm_of(self, source: SourceConfig) -> AlarmConfig:
        """When the rejects of a source raise an event."""
        own = source.alarm
        return self.alarm.model_copy(update={name: getattr(own, name) for name in own.model_fields_set} if own else {})

    def with_images_of_page(self, state: Path) -> "StreamConfig":
        """The configuration with the images that the page displays, if it has a port. `state`: the state folder.

        Warnings are saved too, and without a folder for images they are saved in that of the state.
        """
        if self.web.port is None:
            return self
        images = self.images
        warnings = True if images.warnings is None else images.warnings
        completed = images.model_copy(update={"folder": images.folder or state / "images", "warnings": warnings})
        return self.model_copy(update={"images": completed})
