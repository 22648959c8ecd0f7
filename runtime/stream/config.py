"""Every option of `msc-edge stream`, as the TOML file has them. Unknown keys are refused; see config_file.py."""

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
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

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
TimeOut = Annotated[float, Field(gt=0, le=3600)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("expected a number or a text, and not true or false")
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


class SourceConfig(_Section):
    """One `[[source]]`."""

    address: SecretStr = Field(
        min_length=1,
        description="webcam number, /dev/videoN, rtsp:// or http(s):// stream, video file, or folder being written to",
    )
    name: Name | None = Field(default=None, description="in results and events; without it, made from the address")
    max_fps: PositiveFloat | None = Field(default=None, description="live: score at most this many frames a second")
    lost_after: PositiveFloat = Field(default=20, description="live: seconds without a frame until source_lost")
    frozen_after: Seconds = Field(
        default=20, description="live: seconds of one repeated frame until source_frozen; 0 never"
    )
    open_timeout: TimeOut = Field(default=5, description="live: seconds")
    read_timeout: TimeOut = Field(default=5, description="live: seconds")
    width: PositiveInt | None = Field(default=None, description="webcam: pixels to ask for")
    height: PositiveInt | None = Field(default=None, description="webcam: pixels to ask for")
    fps: PositiveFloat | None = Field(default=None, description="webcam: frames a second to ask for")
    settle: PositiveFloat = Field(default=0.5, description="folder: seconds that a file must stay the same to be whole")


class LimitsConfig(_Section):
    """`[limits]`: another reject limit than the kit's own."""

    threshold: float | None = Field(default=None, description="reject scores above this one")
    false_alarm_rate: float | None = Field(default=None, gt=0, lt=1, description="share of good images to reject")


class AlarmConfig(_Section):
    """`[alarm]`: when rejected frames make a `reject` event."""

    after: Annotated[MofN, BeforeValidator(_parse_m_of_n)] = Field(
        default=MofN(m=1, n=1), description="m rejects among the last n frames, such as 2-of-3"
    )
    cooldown: Seconds = Field(default=0, description="seconds without another reject event of the same source")


class ResultsConfig(_Section):
    """`[results]`: one row a frame."""

    jsonl: Path | None = None
    csv: Path | None = None
    rotate_mb: PositiveFloat = Field(default=100, description="begin a new file at this size")
    keep: PositiveInt = Field(default=10, description="finished files that are kept")

    @model_validator(mode="after")
    def _suffixes_fit(self) -> "ResultsConfig":
        for path, suffix in ((self.jsonl, ".jsonl"), (self.csv, ".csv")):
            if path and path.suffix.lower() != suffix:
                raise ValueError(f"{path}: expected a name that ends in {suffix}")
        return self


class ImagesConfig(_Section):
    """`[images]`: frames that are saved."""

    folder: Path | None = Field(default=None, description="save the frames that are rejected here")
    every: PositiveInt | None = Field(default=None, description="save every n-th normal frame too")
    format: Literal["jpg", "png"] = Field(
        default="jpg", description="png loses nothing and takes several times the space"
    )
    max_mb: PositiveFloat = Field(default=2000, description="the oldest are removed beyond this")
    max_days: PositiveFloat = Field(default=30, description="older ones are removed")


class MqttConfig(_Section):
    """`[mqtt]`."""

    host: str | None = Field(default=None, description="name or address of the broker")
    port: Port = 1883
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: Path | None = Field(default=None, description="certificate authority, where it is not a public one")
    # MQTT 5.0, 4.7: no wildcards, no U+0000, and what begins with $ is the broker's own.
    topic: Annotated[str, Field(pattern=r"^[^$+#\s/\x00]([^+#\s\x00]*[^+#\s/\x00])?$")] = Field(
        default="msc-edge", description="what all topics begin with"
    )
    style: Literal["plain", "home-assistant"] = "plain"
    timeout: TimeOut = Field(default=10, description="seconds to wait for an acknowledgement")

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str | None) -> str | None:
        if host is not None and not re.fullmatch(r"[^\s/@]+", host):
            raise ValueError("expected a name or address alone; `username` and `password` have places of their own")
        return host


class WebhookConfig(_Section):
    """`[webhook]`."""

    url: SecretStr | None = None
    secret: SecretStr | None = Field(default=None, description="sign each request with it")
    timeout: TimeOut = Field(default=10, description="seconds")


class OutboxConfig(_Section):
    """`[outbox]`: events that wait for a broker or a server."""

    max_mb: PositiveFloat = Field(default=200, description="the oldest are dropped, and counted, beyond this")
    max_days: PositiveFloat = Field(default=7, description="older ones are dropped, and counted")


class HttpConfig(_Section):
    """`[http]`: /metrics, /healthz, /readyz."""

    port: Port | None = Field(default=None, description="without it, no port is opened")
    host: str = "127.0.0.1"
    ready_within: PositiveFloat = Field(default=30, description="/readyz: seconds that the last frame may be old")


class LogConfig(_Section):
    """`[log]`."""

    format: Literal["text", "json"] = "text"
    status_every: PositiveFloat = Field(default=60, description="seconds between lines of status")


class StreamConfig(_Section):
    """The whole file."""

    kit: Path
    station: Name = Field(default_factory=lambda: re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:63] or "line")
    state: Path | None = Field(
        default=None,
        description="folder of the outbox and of what was done; without it $STATE_DIRECTORY or the user's own",
    )
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="cores for one frame; all usable ones by default"
    )
    precision: Literal["auto", "fp32", "int8"] | None = Field(
        default=None,
        description="which of the kit's models; the kit's own choice by default, auto: the faster one here",
    )
    backend: Literal["auto", "onnxruntime", "openvino"] = Field(
        default="auto", description="what computes the model; auto: OpenVINO where it is installed and faster for float"
    )
    show: bool = Field(default=False, description="a window with the frame, its score and its verdict")
    source: list[SourceConfig] = Field(min_length=1)
    limits: LimitsConfig = LimitsConfig()
    alarm: AlarmConfig = AlarmConfig()
    results: ResultsConfig = ResultsConfig()
    images: ImagesConfig = ImagesConfig()
    mqtt: MqttConfig = MqttConfig()
    webhook: WebhookConfig = WebhookConfig()
    outbox: OutboxConfig = OutboxConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()


def state_folder(config: StreamConfig) -> Path:
    """Where a stream keeps its state: as configured, or systemd's $STATE_DIRECTORY, or the user's own folder."""
    if config.state:
        return config.state
    if given := os.environ.get("STATE_DIRECTORY", ""):
        return Path(given.partition(":")[0])
    return platformdirs.user_state_path("msc-edge", appauthor=False) / config.station
