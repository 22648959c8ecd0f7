"""A trigger as HTTP and MQTT carry it: a JSON object with an id, and the name of a source where there are several."""

import json
from typing import NamedTuple

LARGEST = 4096
"""Bytes."""


class Message(NamedTuple):
    """What a trigger says. Whether the id and the source can be used is for `Triggers` to decide."""

    id: str
    source: str | None


def parse_message(content: bytes) -> Message:
    """Read a trigger. ValueError, with a sentence for the asker, where it is none."""
    if len(content) > LARGEST:
        raise ValueError(f"{len(content)} bytes are too many for a trigger, which has {LARGEST} at most")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError('not a JSON object; send {"id": "part-4711"}, and "source" where there are several')
    if others := sorted(map(str, found.keys() - {"id", "source"})):
        raise ValueError(f"unknown: {', '.join(others)}; a trigger has `id` and `source`")
    id, source = found.get("id"), found.get("source")
    if not isinstance(id, str):
        raise ValueError("`id` is missing or is no text; give each trigger an id of its own")
    if not (source is None or isinstance(source, str)):
        raise ValueError("`source` is no text; name a live source of the configuration")
    return Message(id, source)
