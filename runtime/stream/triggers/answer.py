"""The answer to a trigger: the decision on its frame, or why there is none."""

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from msc_edge.runtime.results.formats import json_values
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.sinks.rows import FRAME_FIELDS
from msc_edge.text import harmless_json, valid_text

Status = Literal[
    "none",
    "waiting",
    "scored",
    "not_scored",
    "timeout",
    "no_frames",
    "busy",
    "stopping",
    "repeated",
    "unknown_source",
    "invalid",
]
STATUSES: tuple[Status, ...] = get_args(Status)
"""In the order of their numbers for a machine."""

MEANINGS: dict[Status, str] = {
    "none": "no trigger yet",
    "waiting": "its frame is awaited or scored",
    "scored": "the values belong to this trigger",
    "not_scored": "its frame could not be scored",
    "timeout": "no frame was scored in time",
    "no_frames": "the camera is lost or frozen",
    "busy": "another trigger of this source waits for its frame",
    "stopping": "the stream is stopping",
    "repeated": "a frame was scored for this id before",
    "unknown_source": "no live source has this name, or there are several and none was named",
    "invalid": "the trigger cannot be read",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Exactly one for each trigger."""

    trigger: str
    """Id of the trigger."""
    source: str | None
    """None: not known."""
    status: Status
    seconds: float
    """From the trigger to the answer."""
    decision: Decision | None = None
    """With the status `scored` or `not_scored`."""
    error: str | None = None
    """Why there is no verdict; None with the status `scored`."""

    def as_json(self) -> bytes:
        """One JSON object, UTF-8: what every answer has, then the row of the frame if there is one."""
        fields: dict[str, Any] = {
            "trigger": self.trigger,
            "status": self.status,
            "answer_ms": round(1000 * self.seconds, 1),
            "source": self.source,
            "verdict": None,
            "error": self.error,
        }
        if self.decision:
            fields |= json_values(FRAME_FIELDS, self.decision)
        # An asker may send any text as an id or a source, and gets it back.
        valid = {name: valid_text(value) if isinstance(value, str) else value for name, value in fields.items()}
        return harmless_json(json.dumps(valid, ensure_ascii=False, allow_nan=False)).encode()
