"""Triggers by HTTP: a real client, a real stream, and a camera whose parts the test changes."""

import http.client
import itertools
import json
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_sections import TriggerConfig
from msc_edge.runtime.stream.sinks.metrics import Metrics
from msc_edge.runtime.stream.triggers.http_input import HttpInput
from msc_edge.runtime.stream.triggers.pending import Triggers

TOKEN = "0123456789abcdef"


def post(port: int, body: Any, path: str = "/trigger", method: str = "POST", **headers: str) -> tuple[int, Any]:
    """The status, and the body of the response, as JSON where it is."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    client.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
    response = client.getresponse()
    content = response.read()
    client.close()
    is_json = response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(content) if is_json else content


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


def test_each_part_gets_its_own_verdict_and_never_that_of_the_part_before(
    triggered: Callable[..., Any],
    part_camera: Any,
    port: int,
    good_part: np.ndarray,
    stained_part: np.ndarray,
    tmp_path: Path,
    rows_of: Callable[[Path], list[dict[str, Any]]],
    until: Callable[..., Any],
) -> None:
    rows = tmp_path / "rows.jsonl"
    running = triggered("http", port=port, options={"results": {"jsonl": str(rows)}})
    answers = []
    for number in range(8):
        part_camera.show(stained_part if number % 3 == 1 else good_part)
        asked = datetime.now(UTC)
        status, answer = post(port, {"id": f"part-{number}"})
        assert (status, answer["status"], answer["trigger"]) == (200, "scored", f"part-{number}")
        assert datetime.fromisoformat(answer["time"]) > asked
        answers.append(answer)
    assert [each["verdict"] == "reject" for each in answers] == [number % 3 == 1 for number in range(8)]
    found = until(lambda: len(rows_of(rows)) == 8 and rows_of(rows), "all rows, and no others")
    for answer, row in zip(answers, found, strict=True):
        assert row.items() <= answer.items(), "the answer has the row"
    rejects = [running.wait_for("reject", number) for number in range(1, 4)]
    assert [each["trigger"] for each in rejects] == ["part-1", "part-4", "part-7"]


def test_a_stream_that_nobody_asks_is_ready_scores_nothing_and_reports_nothing(
    triggered: Callable[..., Any], port: int, until: Callable[..., Any]
) -> None:
    source_options = {"http": {"ready_within": 0.2}}
    running = triggered("http", port=port, options=source_options)
    statistics = running.stream._parts.statistics
    until(lambda: running.stream._parts.workers[0].copy_frame(1.0) is not None, "frames arrive")
    until(lambda: running.stream.not_ready() == [], "ready")
    for _ in range(20):
        assert running.stream._parts.workers[0].copy_frame(5.0) is not None
    assert running.stream.not_ready() == []
    assert (statistics.frames, statistics.dropped) == (0, 0)
    assert not running.entries("not_scored")
    post(port, {"id": "1"})
    until(lambda: statistics.frames == 1, "only what was asked for is counted")


def test_a_folder_beside_the_camera_is_scored_without_being_asked(
    triggered: Callable[..., Any],
    part_camera: Any,
    good_part: np.ndarray,
    port: int,
    tmp_path: Path,
    save: Callable[[Path, np.ndarray], Path],
    rows_of: Callable[[Path], list[dict[str, Any]]],
    until: Callable[..., Any],
) -> None:
    save(tmp_path / "in" / "part.png", good_part)
    sources = [{"address": part_camera.url, "name": "cam"}, {"address": str(tmp_path / "in"), "name": "in"}]
    rows = tmp_path / "rows.jsonl"
    triggered("http", port=port, options={"source": sources, "results": {"jsonl": str(rows)}})
    until(lambda: rows_of(rows), "the row of the file")
    assert post(port, {"id": "1"})[1]["source"] == "cam", "the only source that can be asked"
    assert post(port, {"id": "2", "source": "in"})[0] == 404
    found = until(lambda: len(rows_of(rows)) == 2 and rows_of(rows), "the row of the camera")
    assert [(each["source"], each["trigger"]) for each in found] == [("in", None), ("cam", "1")]


def test_a_camera_that_sends_nothing_is_an_error_and_the_next_part_is_scored(
    triggered: Callable[..., Any], part_camera: Any, port: int, until: Callable[..., Any]
) -> None:
    triggered("http", port=port, timeout=1.0)
    part_camera.stop_sending()
    status, answer = post(port, {"id": "part-1"})
    assert (status, answer["status"], answer["trigger"], answer["verdict"]) == (504, "timeout", "part-1", None)
    assert "no frame came within 1 s" in answer["error"]
    part_camera.send_again()
    numbers = itertools.count()
    until(lambda: post(port, {"id": f"next-{next(numbers)}"})[1]["status"] == "scored", "parts are scored again")


def test_a_camera_that_is_away_is_an_error_at_once(
    in_process: Callable[..., Any], free_port: Callable[[], int], port: int
) -> None:
    source = {"address": f"rtsp://127.0.0.1:{free_port()}/none", "name": "cam"}
    in_process(source=[source], trigger={"by": "http", "port": port})
    status, answer = post(port, {"id": "part-1"})
    assert (status, answer["status"], answer["verdict"]) == (503, "no_frames", None)
    assert "connecting" in answer["error"]


def test_a_frame_that_cannot_be_scored_is_an_error_with_its_row(
    triggered: Callable[..., Any], part_camera: Any, port: int
) -> None:
    roi = {"x": 60, "y": 0, "width": 40, "height": 40}
    triggered("http", port=port, options={"source": [{"address": part_camera.url, "name": "cam", "roi": roi}]})
    status, answer = post(port, {"id": "part-1"})
    assert (status, answer["status"], answer["verdict"], answer["score"]) == (500, "not_scored", None, None)
    assert "does not fit" in answer["error"]


def test_two_at_once_a_repeated_id_and_a_wrong_source(
    triggered: Callable[..., Any], part_camera: Any, port: int
) -> None:
    triggered("http", port=port, options={"source": [{"address": part_camera.url, "trigger_delay": 3, "name": "cam"}]})
    found: list[tuple[int, Any]] = []
    at_once = [threading.Thread(target=lambda id=id: found.append(post(port, {"id": id}))) for id in ("1", "2")]
    for each in at_once:
        each.start()
    for each in at_once:
        each.join(60)
    assert sorted((status, answer["status"]) for status, answer in found) == [(200, "scored"), (409, "busy")]
    post(port, {"id": "part-3"})
    status, answer = post(port, {"id": "part-3"})
    assert (status, answer["status"]) == (409, "repeated")
    status, answer = post(port, {"id": "part-4", "source": "other"})
    assert (status, answer["status"], answer["source"]) == (404, "unknown_source", "other")


@pytest.mark.parametrize(
    ("body", "headers", "expected", "message"),
    [
        (b"part-4711", {}, 400, "not a JSON object"),
        ({"id": "a b"}, {}, 400, "the id must have"),
        (b"x" * 100_000, {}, 400, "are too many"),
        (None, {"Content_Length": "x"}, 411, "Content-Length"),
        ({"id": "1"}, {"Origin": "http://127.0.0.1"}, 403, "Origin"),
        ({"id": "1"}, {"Authorization": "Bearer wrong"}, 503, "no frames"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    quiet: Callable[..., int], body: Any, headers: dict[str, str], expected: int, message: str
) -> None:
    status, answer = post(quiet(), body, **headers)
    assert (status, answer["verdict"]) == (expected, None)
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 401),
        ({"Authorization": "Bearer 0123456789abcdeg"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 503),
        ({"Authorization": f"bearer  {TOKEN}"}, 503),
    ],
)
def test_with_a_token_only_those_who_have_it_may_ask(
    quiet: Callable[..., int], headers: dict[str, str], expected: int
) -> None:
    assert post(quiet(token=TOKEN), {"id": "1"}, **headers)[0] == expected


@pytest.mark.parametrize(("method", "path", "expected"), [("GET", "/trigger", 405), ("POST", "/", 404)])
def test_other_requests_are_refused(quiet: Callable[..., int], method: str, path: str, expected: int) -> None:
    assert post(quiet(), {"id": "1"}, path, method)[0] == expected


def test_silent_and_slow_clients_do_not_keep_others_from_asking(quiet: Callable[..., int]) -> None:
    port = quiet()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    for each in silent[::2]:
        each.sendall(b"POST /trigger HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
    assert post(port, {"id": "1"})[0] == 503
    for each in silent:
        each.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "other PCs reach 0.0.0.0, and no token is set"),
        ({"token": "short"}, "at least 16"),
        ({"host": "nothing.invalid"}, "correct `host`"),
    ],
)
def test_a_port_that_must_not_or_cannot_be_opened(options: dict[str, Any], message: str, port: int) -> None:
    triggers = Triggers({}, timeout=1, metrics=Metrics())
    with pytest.raises(UsageError, match=message):
        HttpInput(TriggerConfig(by="http", port=port, **options), triggers)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "nothing listens"


def test_a_port_in_use_is_a_usage_error(quiet: Callable[..., int]) -> None:
    with pytest.raises(UsageError, match=r"cannot be opened: .*; choose another `port` in \[trigger\]"):
        HttpInput(TriggerConfig(by="http", port=quiet()), Triggers({}, timeout=1, metrics=Metrics()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": [{"address": "0", "max_fps": 5}]}, "remove `max_fps` of"),
        ({"source": [{"address": "FOLDER"}]}, "no source is one"),
    ],
)
def test_a_stream_that_triggers_do_not_fit_does_not_start(
    in_process: Callable[..., Any], tmp_path: Path, port: int, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "in").mkdir()
    for source in options["source"]:
        source["address"] = source["address"].replace("FOLDER", str(tmp_path / "in"))
    with pytest.raises(UsageError, match=message):
        in_process(trigger={"by": "http", "port": port}, **options)


@pytest.fixture
def quiet(port: int, request: pytest.FixtureRequest) -> Callable[..., int]:
    """Open the server for a source that is away; its port."""
    from msc_edge.runtime.stream.sources.outage import Outage
    from msc_edge.runtime.stream.triggers.pending import TriggeredSource

    class Away:
        name, is_live, partial_outage = "cam", True, ""
        outage = Outage("lost")

    def open_server(token: str | None = None) -> int:
        triggers = Triggers({"cam": TriggeredSource(Away(), 0)}, timeout=1, metrics=Metrics())  # pyright: ignore[reportArgumentType]
        config = TriggerConfig(by="http", port=port, token=SecretStr(token) if token else None)
        server = HttpInput(config, triggers)
        request.addfinalizer(server.close)
        return port

    return open_server
