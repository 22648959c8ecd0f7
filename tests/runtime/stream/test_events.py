import json
import threading
import uuid
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.runtime.stream.events import EVENT_KINDS, Event, EventKind, event_schema, new_id, now

SCHEMA = json.loads(event_schema())
PUBLISHED = Path(__file__).parents[3] / "docs" / "event.schema.json"
LEAST: dict[str, Any] = {"id": "an-id", "kind": "started", "time": now(), "station": "line3", "message": "started"}
FULL: dict[str, Any] = LEAST | {
    "kind": "reject",
    "source": "cam1",
    "frame": 7,
    "path": "/parts/größer.png",
    "position": 1.25,
    "trigger": "part-7",
    "score": 0.25,
    "image_score": 0.25,
    "patch_score": 1.5,
    "p_value": 0.01,
    "verdict": "reject",
    "limit": 0.2,
    "score_to_limit": 1.25,
    "suppressed": 30,
    "regions": [asdict(AnomalousRegion(8, 9, 30, 40, 777, 1.5, 11, 12, 21, 22))],
    "nearest": "part_00.png",
    "model": "fp32",
    "learned": 2,
    "learned_sha256": "cd" * 32,
    "image": "/images/a.jpg",
    "kit": "ab" * 32,
    "count": 3,
    "seconds": 4.5,
}


def schema_errors(body: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(body)]


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == event_schema(), "run `make docs`"


@pytest.mark.parametrize("kind", get_args(EventKind))
@pytest.mark.parametrize("fields", [LEAST, FULL], ids=["least", "full"])
def test_events_of_each_kind_follow_the_schema(kind: EventKind, fields: dict[str, Any]) -> None:
    event = Event.model_validate(fields | {"kind": kind})
    body = json.loads(event.model_dump_json())
    assert schema_errors(body) == []
    assert body["schema_version"] == 2
    assert Event.model_validate_json(event.model_dump_json()) == event


def test_the_schema_describes_each_kind() -> None:
    assert set(EVENT_KINDS) == set(get_args(EventKind))
    assert all(meaning in SCHEMA["properties"]["kind"]["description"] for meaning in EVENT_KINDS.values())


def test_the_fields_above_are_complete() -> None:
    assert set(FULL) | {"schema_version"} == set(Event.model_fields)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "rejected"}, "kind"),
        ({"id": ""}, "id"),
        ({"colour": "red"}, "colour"),
        ({"frame": -1}, "frame"),
        ({"frame": 1.5}, "frame"),
        ({"count": -1}, "count"),
        ({"seconds": -0.1}, "seconds"),
        ({"verdict": "odd"}, "verdict"),
        ({"score": "high"}, "score"),
        ({"schema_version": 1}, "schema_version"),
        ({"message": None}, "message"),
    ],
)
def test_model_and_schema_refuse_an_invalid_event(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Event.model_validate(FULL | change)
    body = json.loads(Event.model_validate(FULL).model_dump_json())
    assert schema_errors(body) == []
    assert schema_errors(body | change) != []


@pytest.mark.parametrize("field", ["id", "kind", "time", "station", "message"])
def test_a_required_field_may_not_be_missing(field: str) -> None:
    body = json.loads(Event.model_validate(LEAST).model_dump_json())
    del body[field]
    assert schema_errors(body) != []
    with pytest.raises(ValidationError, match=field):
        Event.model_validate(body)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_are_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Event.model_validate(FULL | {"score": value})


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Event.model_validate(LEAST | {"time": datetime(2026, 1, 1)})


def test_now_is_in_utc() -> None:
    moment = now()
    assert moment.utcoffset() == timedelta(0)
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=1)
    shown = json.loads(Event.model_validate(LEAST | {"time": moment}).model_dump_json())["time"]
    assert shown.endswith("Z")
    assert datetime.fromisoformat(shown) == moment


def test_ids_are_unique_over_threads() -> None:
    found: list[list[str]] = [[] for _ in range(4)]

    def make(ids: list[str]) -> None:
        ids.extend(new_id() for _ in range(2500))

    threads = [threading.Thread(target=make, args=(ids,), daemon=True) for ids in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for ids in found for one in ids}) == 10_000
    assert str(uuid.UUID(found[0][0])) == found[0][0]


def test_the_operators_page_explains_each_kind() -> None:
    page = (PUBLISHED.parent / "operate.md").read_text(encoding="utf-8")
    assert [kind for kind in get_args(EventKind) if f"`{kind}`" not in page] == []
