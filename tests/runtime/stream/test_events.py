import json
import os
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from msc_edge.runtime.stream.events import MEANING, Event, EventKind, event_schema, new_id, now
from msc_edge.runtime.stream.state import State

SCHEMA = json.loads(event_schema())
PUBLISHED = Path(__file__).parents[3] / "docs" / "event.schema.json"
LEAST: dict[str, Any] = {"id": "an-id", "kind": "started", "time": now(), "station": "line3", "message": "it began"}
FULL: dict[str, Any] = LEAST | {
    "kind": "reject",
    "source": "cam1",
    "frame": 7,
    "path": "/parts/größer.png",
    "position": 1.25,
    "score": 0.25,
    "p_value": 0.01,
    "verdict": "reject",
    "nearest": "part_00.png",
    "image": "/images/a.jpg",
    "kit": "ab" * 32,
    "count": 3,
    "seconds": 4.5,
}


def faults(body: Any) -> list[str]:
    return [fault.message for fault in Draft202012Validator(SCHEMA).iter_errors(body)]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_that_is_published_is_this_one() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == event_schema(), "run `make docs`"


@pytest.mark.parametrize("kind", get_args(EventKind))
@pytest.mark.parametrize("fields", [LEAST, FULL], ids=["least", "full"])
def test_an_event_of_each_kind_is_as_the_schema_says(kind: EventKind, fields: dict[str, Any]) -> None:
    event = Event.model_validate(fields | {"kind": kind})
    body = json.loads(event.model_dump_json())
    assert faults(body) == []
    assert body["schema_version"] == 1
    assert Event.model_validate_json(event.model_dump_json()) == event


def test_each_kind_has_a_meaning_and_the_schema_tells_it() -> None:
    assert set(MEANING) == set(get_args(EventKind))
    assert all(words in SCHEMA["properties"]["kind"]["description"] for words in MEANING.values())


def test_these_rows_have_every_field_that_there_is() -> None:
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
        ({"schema_version": 2}, "schema_version"),
        ({"message": None}, "message"),
    ],
)
def test_what_no_event_may_be_neither_the_model_nor_the_schema_takes(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Event.model_validate(FULL | change)
    body = json.loads(Event.model_validate(FULL).model_dump_json())
    assert faults(body) == []
    assert faults(body | change) != []


@pytest.mark.parametrize("field", ["id", "kind", "time", "station", "message"])
def test_what_every_event_has_may_not_be_missing(field: str) -> None:
    body = json.loads(Event.model_validate(LEAST).model_dump_json())
    del body[field]
    assert faults(body) != []
    with pytest.raises(ValidationError, match=field):
        Event.model_validate(body)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_such_numbers(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Event.model_validate(FULL | {"score": value})


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Event.model_validate(LEAST | {"time": datetime(2026, 1, 1)})


def test_now_is_told_in_utc() -> None:
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


@pytest.mark.parametrize(("name", "shown"), [(b"/schicht 3", "schicht 3"), (b"/schicht \xfc", "schicht \\xfc")])
def test_events_of_a_real_stream_are_so_too_with_names_that_are_not_utf8(
    stream: Callable[..., Any],
    toy: ModuleType,
    tmp_path: Path,
    save: Callable[[Path, np.ndarray], Path],
    name: bytes,
    shown: str,
) -> None:
    """A camera's software writes names in its own code page; JSON has only Unicode."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + name))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    for part in (b"teil \xff.png", "größer.png".encode(), b"new\nline.png"):
        save(folder / os.fsdecode(part), toy.draw(200, "scratch"))
    running = stream("--source", folder, "--webhook", "http://127.0.0.1:9/hook", "--images", tmp_path / "saved")
    running.wait_for("reject", 3)
    assert running.stop() == 0
    with State.open(tmp_path / "state", channels=["webhook"]) as state:
        bodies = [json.loads(one.body) for one in state.waiting("webhook", most=100)]
    assert [fault for body in bodies for fault in faults(body)] == []
    kinds = [body["kind"] for body in bodies]
    assert kinds[0] == "started"
    assert kinds[-1] == "stopped"
    assert kinds.count("reject") == 3
    assert "source_up" in kinds
    assert len({body["id"] for body in bodies}) == len(bodies)
    rejects = {body["path"].rpartition("/")[2]: body for body in bodies if body["kind"] == "reject"}
    assert set(rejects) == {"teil \\xff.png", "größer.png", "new\nline.png"}
    assert all(f"/{shown}/" in body["path"] for body in rejects.values())
    assert all(body["verdict"] == "reject" and 0 < body["p_value"] < 1 for body in rejects.values())
    logged = {entry["id"]: entry for entry in running.entries("reject")}
    assert {body["id"] for body in rejects.values()} == set(logged), "the log has the same events"
