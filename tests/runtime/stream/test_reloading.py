"""What a reload changes in a running stream, and what it refuses."""

import shutil
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import tomli_w
from onnx import helper, numpy_helper

from msc_edge.errors import KitError
from msc_edge.kit.layout import MANIFEST, MODEL_FILES
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.signatures import new_key
from msc_edge.kit.signing import sign
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime.backends.interface import EMBEDDING
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.config_file import check_config, read_config
from msc_edge.runtime.stream.control import request_config, request_reload
from msc_edge.runtime.stream.reloading import changed_options, is_reloadable
from msc_edge.runtime.stream.service import Stream

TIMEOUT = 30.0
LEAST: dict[str, Any] = {"kit": "k", "source": [{"address": "0"}, {"address": "1", "alarm": {"cooldown": 1}}]}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, []),
        ({"limits": {"threshold": 0.5}}, ["limits.threshold"]),
        ({"alarm": {"after": "2-of-3"}}, ["alarm.after.m", "alarm.after.n"]),
        ({"mqtt": {"host": "a", "password": "new"}}, ["mqtt.host", "mqtt.password"]),
        ({"source": [{"address": "0"}, {"address": "2"}]}, ["source.2.address"]),
        ({"source": [{"address": "0"}]}, ["source"]),
        ({"threads": 3}, ["threads"]),
    ],
)
def test_options_that_differ_have_a_name(change: dict[str, Any], names: list[str]) -> None:
    found = changed_options(check_config(LEAST), check_config(LEAST | change))
    assert [name for name in found if not name.startswith("source.2.alarm")] == names


def test_every_option_is_either_reloaded_or_refused() -> None:
    top = {name for name in StreamConfig.model_fields if is_reloadable(f"{name}.x") or is_reloadable(name)}
    assert top == {
        "kit",
        "precision",
        "backend",
        "trusted_key",
        "limits",
        "alarm",
        "images",
        "mqtt",
        "webhook",
        "outbox",
    }
    for name in ("http.port", "source.1.address", "source.12.max_fps", "state", "station", "results.csv", "threads"):
        assert not is_reloadable(name), name
    for name in ("http.ready_within", "source.1.kit", "source.2.limits.threshold", "source.12.alarm.after.m"):
        assert is_reloadable(name), name


def make_nan(kit: Path) -> None:
    """Give the kit a model whose embedding is not a number, with right hashes."""
    model = onnx.load(kit / MODEL_FILES["fp32"])
    node = next(node for node in model.graph.node if EMBEDDING in node.output)
    node.output[list(node.output).index(EMBEDDING)] = "finite"
    model.graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    model.graph.node.append(helper.make_node("Mul", ["finite", "nan"], [EMBEDDING]))
    (kit / MODEL_FILES["fp32"]).write_bytes(model.SerializeToString())
    seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))


def make_region(kit: Path, *, width: int, height: int) -> None:
    """Give the kit a region of interest; its model ignores it."""
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    region = Region(x=0, y=0, width=width, height=height)
    preprocessing = manifest.preprocessing.model_copy(update={"region": region})
    seal(kit, manifest.model_copy(update={"preprocessing": preprocessing}))


@pytest.fixture
def from_file(tmp_path: Path, toy_kit: Path, run: Callable) -> Any:
    """Start a stream with a configuration file in this process; `write` changes the file."""

    class FromFile:
        path = tmp_path / "line.toml"
        state = tmp_path / "state"
        running: Any = None

        def write(self, **options: Any) -> None:
            document = {"kit": str(toy_kit), "state": str(self.state), "station": "line3", "threads": 1, **options}
            self.path.write_text(tomli_w.dumps(document), encoding="utf-8")

        def start(self) -> Any:
            self.running = run(Stream(read_config(self.path, {}), reread=lambda: read_config(self.path, {})))
            return self.running

    return FromFile()


class Receiver:
    """An HTTP server that accepts events, and keeps their ids."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"
        self.port = port
        self.ids: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                receiver.ids.append(self.headers["webhook-id"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(free_port: Callable[[], int]) -> Iterator[Any]:
    server = Receiver(free_port())
    yield server
    server.stop()


def test_limits_alarms_and_the_webhook_of_the_file_apply_at_once(
    from_file: Any, toy: ModuleType, save: Callable, server: Any, until: Callable, tmp_path: Path
) -> None:
    """A reload that silently keeps old limits makes people distrust the rest."""
    folder = tmp_path / "in"
    folder.mkdir()
    sources = [{"address": str(folder), "name": "in"}]
    from_file.write(source=sources, webhook={"url": "http://127.0.0.1:9/nobody"}, alarm={"after": "3-of-3"})
    running = from_file.start()
    save(folder / "a.png", toy.draw(200, "scratch"))
    save(folder / "b.png", toy.draw(201, "scratch"))
    until(lambda: running.stream._parts.statistics.verdicts["reject"] == 2, "scored")
    assert running.entries("reject") == []

    limits, alarm = {"threshold": 1e-6}, {"after": "1-of-1"}
    from_file.write(source=sources, webhook={"url": server.url}, limits=limits, alarm=alarm)
    message = request_reload(from_file.state, timeout=TIMEOUT)
    assert message.endswith("; changed: limits.threshold, alarm.after.m, alarm.after.n, webhook.url")
    suppressed = running.wait_for("rejects_suppressed")
    assert (suppressed["source"], suppressed["count"]) == ("in", 2)
    save(folder / "c.png", toy.draw(10))
    event = running.wait_for("reject")
    assert (event["limit"], event["suppressed"]) == (1e-6, 0)
    assert "p_value" not in event, "a threshold that was set by hand has no rate"
    assert event["score_to_limit"] == pytest.approx(event["score"] / 1e-6)
    until(lambda: event["id"] in server.ids, "it is delivered to the new URL")
    shown = tomllib.loads(request_config(from_file.state, timeout=TIMEOUT))
    assert shown["limits"] == {"threshold": 1e-6}
    assert shown["alarm"]["after"] == "1-of-1"
    assert shown["webhook"]["url"] == f"http://127.0.0.1:{server.port}/***"


def test_an_option_that_needs_a_restart_is_named_and_nothing_changes(from_file: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    sources = [{"address": str(tmp_path / "in")}]
    from_file.write(source=sources)
    running = from_file.start()
    running.wait_for("started")
    from_file.write(source=sources, limits={"threshold": 0.5}, http={"port": 9999}, log={"format": "json"})
    with pytest.raises(KitError, match=r"restart the stream to change http\.port, log\.format; nothing was changed"):
        request_reload(from_file.state, timeout=TIMEOUT)
    assert running.stream._parts.config.limits.threshold is None
    from_file.write(source=sources, mqtt={"host": "127.0.0.1"})
    with pytest.raises(KitError, match=r"restart the stream to add or remove mqtt\.host"):
        request_reload(from_file.state, timeout=TIMEOUT)
    from_file.path.write_text("kit = ")
    with pytest.raises(KitError, match="not TOML"):
        request_reload(from_file.state, timeout=TIMEOUT)
    assert len(running.entries("kit_refused")) == 3


def test_a_kit_is_opened_once_however_many_sources_use_it(
    from_file: Any, toy: ModuleType, toy_kit: Path, save: Callable, until: Callable, rows_of: Callable, tmp_path: Path
) -> None:
    shutil.copytree(toy_kit, tmp_path / "other.kit")
    for name in ("one", "two", "three"):
        save(tmp_path / name / "a.png", toy.draw(200, "scratch"))
    one, two, three = ({"address": str(tmp_path / name), "name": name} for name in ("one", "two", "three"))
    rows = tmp_path / "rows.jsonl"
    from_file.write(
        source=[one, two | {"limits": {"threshold": 1.9}}, three | {"kit": "other.kit", "roi": "0,0,40,30"}],
        results={"jsonl": str(rows)},
        images={"folder": str(tmp_path / "saved"), "format": "png", "overlays": False},
    )
    running = from_file.start()
    until(lambda: len(rows_of(rows)) == 3, "three rows")
    found = {row["source"]: row for row in rows_of(rows)}
    detectors = {name: running.stream._parts.kits.detector(name) for name in found}
    assert detectors["one"].backend is detectors["two"].backend
    assert detectors["three"].backend is not detectors["one"].backend
    assert (found["one"]["verdict"], found["two"]["verdict"]) == ("reject", "warn")
    assert (found["two"]["limit"], found["two"]["p_value"]) == (1.9, None)
    assert found["one"]["score"] == found["two"]["score"]
    part = np.ascontiguousarray(toy.draw(200, "scratch")[:30, :40])
    assert found["three"]["score"] == pytest.approx(detectors["three"].score(part).score, abs=1e-6)


def test_a_kit_that_scores_nothing_is_refused_at_the_start_and_at_a_reload(
    from_file: Any, kit: Path, tmp_path: Path
) -> None:
    """Right hashes, and NaN for every image."""
    make_nan(kit)
    (tmp_path / "in").mkdir()
    sources = [{"address": str(tmp_path / "in")}]
    from_file.write(source=sources, kit=str(kit))
    with pytest.raises(KitError, match=r"the embedding of the check image has length nan"):
        Stream(read_config(from_file.path, {}))
    from_file.write(source=sources)
    running = from_file.start()
    running.wait_for("started")
    before = running.stream._parts.kits.sha256(None)
    from_file.write(source=sources, kit=str(kit))
    with pytest.raises(KitError, match=r"the previous kit remains active: .* embedding of the check image"):
        request_reload(from_file.state, timeout=TIMEOUT)
    assert running.stream._parts.kits.sha256(None) == before
    assert running.entries("kit_refused")


def test_only_signed_kits_are_accepted_at_the_start_and_at_a_reload(
    from_file: Any, kit: Path, tmp_path: Path, toy_kit: Path
) -> None:
    (tmp_path / "in").mkdir()
    new_key(tmp_path / "keys/line")
    sources, trusted = [{"address": str(tmp_path / "in")}], {"trusted_key": "keys"}
    from_file.write(source=sources, kit=str(kit), **trusted)
    with pytest.raises(KitError, match=r"is not signed, and only kits of line\.pub are accepted"):
        Stream(read_config(from_file.path, {}))
    sign(kit, tmp_path / "keys/line.key")
    running = from_file.start()
    running.wait_for("started")
    before = running.stream._parts.kits.sha256(None)
    from_file.write(source=sources, kit=str(toy_kit), **trusted)
    with pytest.raises(KitError, match=r"the previous kit remains active: .* is not signed"):
        request_reload(from_file.state, timeout=TIMEOUT)
    assert running.stream._parts.kits.sha256(None) == before
    (tmp_path / "keys/line.pub").unlink()
    with pytest.raises(KitError, match=r"the previous kit remains active: .* holds no public key"):
        request_reload(from_file.state, timeout=TIMEOUT)


def test_a_kit_that_cannot_score_the_frames_of_a_camera_is_refused(camera: Any, from_file: Any, kit: Path) -> None:
    from_file.write(source=[{"address": camera.url(), "name": "cam"}])
    running = from_file.start()
    running.wait_for("source_up")
    make_region(kit, width=5000, height=40)
    from_file.write(source=[{"address": camera.url(), "name": "cam"}], kit=str(kit))
    with pytest.raises(KitError, match=r"the last frame of cam cannot be scored: .* region of interest is 5000x40"):
        request_reload(from_file.state, timeout=TIMEOUT)
    from_file.write(source=[{"address": camera.url(), "name": "cam", "roi": "10,10,200,100"}])
    assert "changed: source.1.roi" in request_reload(from_file.state, timeout=TIMEOUT)
    from_file.write(source=[{"address": camera.url(), "name": "cam", "roi": "10,10,20000,100"}])
    with pytest.raises(KitError, match=r"the roi of the source does not fit"):
        request_reload(from_file.state, timeout=TIMEOUT)


def test_a_folder_that_is_lost_is_not_ready(from_file: Any, tmp_path: Path, until: Callable) -> None:
    (tmp_path / "in").mkdir()
    from_file.write(source=[{"address": str(tmp_path / "in"), "name": "parts"}])
    running = from_file.start()
    running.wait_for("source_up")
    assert running.stream.not_ready() == []
    (tmp_path / "in").rename(tmp_path / "away")
    until(lambda: any("parts: lost" in reason for reason in running.stream.not_ready()), "the folder is missed")
    (tmp_path / "away").rename(tmp_path / "in")
    until(lambda: running.stream.not_ready() == [], "the folder is back")
