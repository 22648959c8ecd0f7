"""The sections of the TOML file of `msc-edge stream` but for its sources, named as in the file; see config.py."""

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

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Timeout = Annotated[float, Field(gt=0, le=3600)]


class Section(BaseModel):
    """A section refuses unknown names, and true or false for numbers and texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation not in (bool, bool | None):
            raise ValueError("expected a number or a text, not true or false")
        return value


class MofN(Section):
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


class LimitsConfig(Section):
    """`[limits]`: a reject limit that replaces the kit's."""

    threshold: float | None = Field(default=None, description="reject scores above this value")
    false_alarm_rate: float | None = Field(
        default=None, gt=0, lt=1, description="target false-alarm rate: share of normal images"
    )


class AlarmConfig(Section):
    """`[alarm]`: when rejected frames raise a `reject` event."""

    after: Annotated[MofN, BeforeValidator(_parse_m_of_n)] = Field(
        default=MofN(m=1, n=1), description="m rejects among the last n frames, such as 2-of-3"
    )
    cooldown: Seconds = Field(default=0, description="seconds without another reject event of the same source")


class ResultsConfig(Section):
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


class ImagesConfig(Section):
    """`[images]`: frames that are saved."""

    folder: Path | None = Field(default=None, description="save rejected frames here")
    every: PositiveInt | None = Field(default=None, description="save every n-th normal frame too")
    warnings: bool | None = Field(
        default=None, description="save frames with a warning too; by default while [web] has a port"
    )
    overlays: bool = Field(
        default=True, description="save a rejected frame, and one with a warning, with its heatmap too, beside it"
    )
    format: Literal["jpg", "png"] = Field(default="jpg", description="png is lossless and several times larger")
    max_mb: PositiveFloat = Field(default=2000, description="remove the oldest beyond this size")
    max_days: PositiveFloat = Field(default=30, description="remove older images; time in which the PC is on")


class MqttConfig(Section):
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


class WebhookConfig(Section):
    """`[webhook]`."""

    url: Annotated[SecretStr, Field(min_length=1)] | None = None
    secret: SecretStr | None = Field(default=None, description="key that signs each request")
    timeout: Timeout = Field(default=10, description="seconds")


class OutboxConfig(Section):
    """`[outbox]`: the backlog of events for a broker or a server."""

    max_mb: PositiveFloat = Field(default=200, description="drop and count the oldest events beyond this size")
    max_days: PositiveFloat = Field(default=7, description="drop and count older events; time in which the PC is on")


class DriftConfig(Section):
    """`[drift]`: when the scores of a source rise or fall, `drift_suspected`."""

    watch: bool = Field(default=True, description="false: no such event")
    every: Seconds = Field(
        default=5, description="live: only one frame in so many seconds counts; it should show another part"
    )


class HttpConfig(Section):
    """`[http]`: /metrics, /healthz, /readyz."""

    port: Port | None = Field(default=None, description="no port is opened by default")
    host: str = "127.0.0.1"
    ready_within: PositiveFloat = Field(default=30, description="/readyz: maximum age of the last frame, in seconds")


class WebConfig(Section):
    """`[web]`: the station's page, with live frames and a gallery of rejects and warnings (extra [web])."""

    port: Port | None = Field(default=None, description="no port is opened by default")
    host: str = Field(
        default="127.0.0.1",
        description="address to listen on; another one than this PC's own needs `users`, `tls_cert` and `tls_key`",
    )
    users: Path | None = Field(
        default=None, description="file of the users who may log in, from `msc-edge user add`; none: nobody logs in"
    )
    tls_cert: Path | None = Field(default=None, description="certificate for https, PEM")
    tls_key: Path | None = Field(default=None, description="key of the certificate, PEM")
    insecure: bool = Field(
        default=False,
        description="serve other PCs without `users`: everybody may use the page; or without a certificate: passwords "
        "cross the network in plain text",
    )
    session_hours: Annotated[float, Field(gt=0, le=720)] = Field(
        default=12, description="hours after which a user must log in again"
    )


class LineConfig(Section):
    """`[line]`: the last decision of each source as values for a machine. Reading needs no password."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is every network of this PC")
    modbus_port: Port | None = Field(default=None, description="Modbus TCP, usually 502; no port is opened by default")
    opcua_port: Port | None = Field(default=None, description="OPC UA, usually 4840; no port is opened by default")


class TriggerConfig(Section):
    """`[trigger]`: live sources score a frame only when they are asked for one."""

    by: Literal["http", "mqtt", "modbus", "opcua"] | None = Field(
        default=None, description="who asks; by default live sources score all frames that they can"
    )
    timeout: Timeout = Field(default=2, description="seconds until a trigger without a decision is answered: error")
    host: str = Field(default="127.0.0.1", description="http: address to listen on; others need a `token`")
    port: Port = Field(default=9120, description="http: POST /trigger")
    token: SecretStr | None = Field(default=None, description="http: what askers send as Authorization: Bearer")


class LogConfig(Section):
    """`[log]`."""

    format: Literal["text", "json"] = "text"
    status_every: PositiveFloat = Field(default=60, description="seconds between two status lines in the log")
