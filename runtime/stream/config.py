"""Every option of `msc-edge stream`, named as in the TOML file. Unknown names are refused; see config_file.py."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic import NonNegativeFloat as Seconds

from msc_edge.kit.manifest import Precision
from msc_edge.preprocessing import Region
from msc_edge.runtime.backends.interface import BackendChoice
from msc_edge.runtime.station import default_station

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Timeout = Annotated[float, Field(gt=0, le=3600)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("expected a number or a text, not true or false")
        return value


class MofN(_Section):
    """An alarm needs `m` rejects among the last `n` frames of a source."""

    m: PositiveInt
    n: PositiveInt

    @model_validator(mode="after")
    def _m_fits(self) -> "MofN":
        if self.m > self.n:
            raise ValueError("expected m-of-n, such as 2-of-3, with m from 1 to n")
        return self

    def __str__(self) -> str:
        return f"{self.m}-of-{self.n}"


def _parse_m_of_n(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not (match := re.fullmatch(r"(\d{1,4})-of-(\d{1,4})", value)) or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("expected m-of-n, such as 2-of-3, with m from 1 to n")
    return {"m": int(match[1]), "n": int(match[2])}


def _parse_roi(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split(",")
    if len(parts) != 4:
        raise ValueError("expected X,Y,WIDTH,HEIGHT in pixels")
    return dict(zip(("x", "y", "width", "height"), parts, strict=True))


class LimitsConfig(_Section):
    """`[limits]`: a reject limit that replaces the kit's."""

    threshold: float | None = Field(default=None, description="reject scores above this value")
    false_alarm_rate: float | None = Field(
        default=None, gt=0, lt=1, description="target false-alarm rate: share of normal images"
    )


class AlarmConfig(_Section):
    """`[alarm]`: when rejected frames raise a `reject` event."""

    after: Annotated[MofN, BeforeValidator(_parse_m_of_n)] = Field(
        default=MofN(m=1, n=1), description="m rejects among the last n frames, such as 2-of-3"
    )
    cooldown: Seconds = Field(default=0, description="seconds without another reject event of the same source")


class SourceConfig(_Section):
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


class ResultsConfig(_Section):
    """`[results]`: one row per frame."""

    jsonl: Path | None = None
    csv: Path | None = None
    rotate_mb: PositiveFloat = Field(default=100, description="start a new file at this size")
    keep: PositiveInt = Field(default=10, description="number of finished files to keep")

    @model_validator(mode="after")
    def _suffixes_fit(self) -> "ResultsConfig":
        for path, suffix in ((self.jsonl, ".jsonl"), (self.csv, ".csv")):
            if path and path.suffix.lower() != suffix:
                raise ValueError(f"{path}: expected a name that ends in {suffix}")
        return self


class ImagesConfig(_Section):
    """`[images]`: frames that are saved."""

    folder: Path | None = Field(default=None, description="save rejected frames here")
    every: PositiveInt | None = Field(default=None, description="save every n-th normal frame too")
    overlays: bool = Field(default=True, description="save a rejected frame with its heatmap too, beside it")
    format: Literal["jpg", "png"] = Field(default="jpg", description="png is lossless and several times larger")
    max_mb: PositiveFloat = Field(default=2000, description="remove the oldest beyond this size")
    max_days: PositiveFloat = Field(default=30, description="remove older images; time in which the PC is on")


class MqttConfig(_Section):
    """`[mqtt]`."""

    host: str | None = Field(default=None, description="name or address of the broker")
    port: Port = 1883
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: Path | None = Field(default=None, description="certificate authority, if it is not a public one")
    # MQTT 5.0, 4.7: no wildcards and no U+0000; topics that begin with $ belong to the broker.
    topic: Annotated[str, Field(pattern=r"^[^$+#\s/\x00]([^+#\s\x00]*[^+#\s/\x00])?$")] = Field(
        default="msc-edge", description="first part of all topics"
    )
    style: Literal["plain", "home-assistant"] = "plain"
    timeout: Timeout = Field(default=10, description="seconds to wait for an acknowledgement")

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str | None) -> str | None:
        if host is not None and not re.fullmatch(r"[^\s/@]+", host):
            raise ValueError("expected a name or address only; give `username` and `password` as options of their own")
        return host


class WebhookConfig(_Section):
    """`[webhook]`."""

    url: Annotated[SecretStr, Field(min_length=1)] | None = None
    secret: SecretStr | None = Field(default=None, description="key that signs each request")
    timeout: Timeout = Field(default=10, description="seconds")


class OutboxConfig(_Section):
    """`[outbox]`: the backlog of events for a broker or a server."""

    max_mb: PositiveFloat = Field(default=200, description="drop and count the oldest events beyond this size")
    max_days: PositiveFloat = Field(default=7, description="drop and count older events; time in which the PC is on")


class DriftConfig(_Section):
    """`[drift]`: when the scores of a source rise or fall, `drift_suspected`."""

    watch: bool = Field(default=True, description="false: no such event")
    every: Seconds = Field(
        default=5, description="live: only one frame in so many seconds counts; it should show another part"
    )


class HttpConfig(_Section):
    """`[http]`: /metrics, /healthz, /readyz."""

    port: Port | None = Field(default=None, description="no port is opened by default")
    host: str = "127.0.0.1"
    ready_within: PositiveFloat = Field(default=30, description="/readyz: maximum age of the last frame, in seconds")


class LineConfig(_Section):
    """`[line]`: the last decision of each source as values for a machine. Reading needs no password."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is every network of this PC")
    modbus_port: Port | None = Field(default=None, description="Modbus TCP, usually 502; no port is opened by default")
    opcua_port: Port | None = Field(default=None, description="OPC UA, usually 4840; no port is opened by default")


class LogConfig(_Section):
    """`[log]`."""

    format: Literal["text", "json"] = "text"
    status_every: PositiveFloat = Field(default=60, description="seconds between two status lines in the log")


class StreamConfig(_Section):
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
    line: LineConfig = LineConfig()
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
