"""Events: what the stream reports to a broker or a server, at once or when the network is back.

Each event is one JSON object, the same for MQTT and webhooks. docs/event.schema.json is generated from the model below.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.calibration import Verdict
from msc_edge.kit.manifest import Precision
from msc_edge.runtime.results.fields import description_of
from msc_edge.runtime.stream.frame import Decision
from msc_edge.text import valid_text

EventKind = Literal[
    "started",
    "stopped",
    "reject",
    "rejects_suppressed",
    "unreadable",
    "source_up",
    "source_lost",
    "source_frozen",
    "source_ended",
    "folder_incomplete",
    "folder_complete",
    "not_scored",
    "drift_suspected",
    "kit_loaded",
    "kit_refused",
    "learned",
    "learned_refused",
    "results_lost",
    "events_lost",
]

EVENT_KINDS: dict[EventKind, str] = {
    "started": "scoring has started",
    "stopped": "scoring has stopped, on request or because all sources ended",
    "reject": "a part was rejected (after debouncing, as configured in [alarm])",
    "rejects_suppressed": "rejects that raised no `reject` event, when a cooldown, the alarm's configuration or the "
    "stream ends",
    "unreadable": "an image file of a watched folder could not be read or scored, or was removed or replaced before: "
    "this part was not inspected",
    "source_up": "frames arrive and are scored",
    "source_lost": "no frames arrive: parts pass without inspection until `source_up`",
    "source_frozen": "the camera repeats one frame: nothing is scored until `source_up`",
    "source_ended": "a video file was scored to its end",
    "folder_incomplete": "a part of a watched folder cannot be listed: images there are not inspected until "
    "`folder_complete`",
    "folder_complete": "all of a watched folder can be listed again",
    "not_scored": "frames arrive, and none can be scored: parts pass without inspection until `source_up`",
    "drift_suspected": "the scores of a source have risen or fallen: light, lens, camera or parts have changed; once "
    "for each kit",
    "kit_loaded": "the kits and the configuration were loaded again",
    "kit_refused": "a kit or the configuration was refused; the previous ones remain active",
    "learned": "images that this station has learned count from now on, or no more",
    "learned_refused": "what this station has learned cannot be used; what counted before still does",
    "results_lost": "rows or images could not be written, for example because the disk is full",
    "events_lost": "events were dropped because the outbox was full or they were too old",
}

SCORED_AFTER: dict[EventKind, bool] = {
    "source_up": True,
    "source_lost": False,
    "source_frozen": False,
    "source_ended": False,
    "not_scored": False,
}
"""Whether frames of a source are scored after an event of this kind."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event in the outbox of one channel."""

    number: int
    id: str
    kind: str
    """As in `Event`. An older version of msc-edge may have written kinds that are unknown to this one."""
    source: str | None
    body: bytes
    """JSON, UTF-8, in the schema of the version that recorded the event."""
    attempts: int
    """Number of failed deliveries."""


class Event(BaseModel):
    """One event. `id` is unique and stable: a receiver that gets an event twice can recognise it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[2] = 2
    id: str = Field(min_length=1)
    kind: EventKind = Field(description="; ".join(f"{kind}: {meaning}" for kind, meaning in EVENT_KINDS.items()))
    time: AwareDatetime = Field(
        description="when it happened; for `reject` and `unreadable`, when the frame was captured"
    )
    station: str = Field(description="name of the PC or line, as configured")
    source: str | None = Field(default=None, description="name of the source; null: not about one source")
    message: str = Field(description="one sentence for a person")
    frame: int | None = Field(default=None, ge=0, description="number of the frame in its source")
    path: str | None = Field(default=None, description="the image file")
    position: float | None = Field(default=None, description="seconds from the start of a video file")
    trigger: str | None = Field(default=None, description="id of the trigger that asked for the frame")
    score: float | None = Field(default=None, description=description_of("score"))
    image_score: float | None = Field(default=None, description=description_of("image_score"))
    patch_score: float | None = Field(default=None, description=description_of("patch_score"))
    p_value: float | None = Field(default=None, description=description_of("p_value"))
    verdict: Verdict | None = Field(default=None, description=description_of("verdict"))
    limit: float | None = Field(default=None, description=description_of("limit"))
    score_to_limit: float | None = Field(default=None, description=description_of("score_to_limit"))
    suppressed: int | None = Field(
        default=None,
        ge=0,
        description="for `reject`: rejected frames of this source since its last `reject` or `rejects_suppressed` "
        "event that raised none, because of `after` and `cooldown` in [alarm]",
    )
    regions: tuple[AnomalousRegion, ...] | None = Field(default=None, description=description_of("regions"))
    nearest: str | None = Field(default=None, description=description_of("nearest"))
    model: Precision | None = Field(default=None, description=description_of("model"))
    learned: int | None = Field(default=None, ge=0, description=description_of("learned"))
    learned_sha256: str | None = Field(default=None, description=description_of("learned_sha256"))
    image: str | None = Field(default=None, description="where the frame was saved")
    kit: str | None = Field(
        default=None,
        description="SHA-256 of the manifest of a kit: for `reject` the one that scored the frame, else the active one "
        "of the source; null where several are active",
    )
    count: int | None = Field(
        default=None,
        ge=0,
        description="for `rejects_suppressed`, `results_lost` and `events_lost`: how many; for `drift_suspected`: "
        "images since it began; for `learned`: learned images that count",
    )
    seconds: float | None = Field(
        default=None,
        ge=0,
        description="for `source_up`: how long no frame of this source was scored; for `rejects_suppressed`: time "
        "since the first of them",
    )


def rejection(decision: Decision, image: Path | None, *, station: str, suppressed: int = 0) -> Event:
    """The event of a rejected part. `image`: where its frame was saved. `suppressed`: see `Event`."""
    frame, result = decision.frame, decision.result
    assert result is not None, "only a scored frame is rejected"
    others = f"; {suppressed} rejects before it raised no event" if suppressed else ""
    return Event(
        id=decision.id,
        kind="reject",
        time=frame.time,
        station=station,
        source=frame.source,
        message=f"{describe_rejection(decision)}{others}",
        frame=frame.index,
        path=_text(frame.path),
        position=frame.position,
        trigger=frame.trigger,
        score=result.score,
        image_score=result.image_score,
        patch_score=result.patch_score,
        p_value=result.p_value,
        verdict=result.verdict,
        limit=result.limit,
        score_to_limit=result.score_to_limit,
        suppressed=suppressed,
        regions=result.regions,
        nearest=_text(result.nearest),
        model=result.model,
        learned=result.learned,
        learned_sha256=result.learned_sha256,
        image=_text(str(image)) if image else None,
        kit=result.kit,
    )


def describe_rejection(decision: Decision) -> str:
    """Source, score and limit of a rejected frame, in words."""
    result = decision.result
    assert result is not None, "only a scored frame is rejected"
    times = f", {result.score_to_limit:.2f} times the limit" if result.score_to_limit is not None else ""
    return f"{decision.frame.source}: rejected, score {result.score:.6f}, limit {result.limit:.6f}{times}"


def unreadable(decision: Decision, *, station: str) -> Event:
    """The event of a file that could not be read or scored."""
    frame = decision.frame
    path = _text(frame.path)
    return Event(
        id=decision.id,
        kind="unreadable",
        time=frame.time,
        station=station,
        source=frame.source,
        message=_text(f"{frame.source}: {path}: {frame.error}") or "",
        frame=frame.index,
        path=path,
    )


def new_id() -> str:
    """A unique id."""
    return str(uuid.uuid4())


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def event_schema() -> str:
    """The JSON schema of an event (draft 2020-12), as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Event.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def _text(text: str | None) -> str | None:
    return None if text is None else valid_text(text)
