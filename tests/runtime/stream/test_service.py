"""The whole service: start, signals, reload, watchdog, end."""

import contextlib
import json
import os
import shutil
import signal
import socket
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.runtime.station import state_folder
from msc_edge.runtime.stream.control import request_reload
from msc_edge.runtime.stream.events import Event
from msc_edge.runtime.stream.sinks.recorder import Recorder
from msc_edge.runtime.stream.state import FILE, State

TIMEOUT = 30.0
SECRETS = ("hunter2", "operator", "sesame")


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def replace(kit: Path, by: Path) -> None:
    """Replace a kit as a deployment does."""
    aside = kit.with_suffix(".aside")
    kit.rename(aside)
    shutil.copytree(by, kit)
    shutil.rmtree(aside)


def test_a_camera_is_scored_until_sigterm(
    camera: Any, stream: Callable, until: Callable, rows_of: Callable, free_port: Callable[[], int], tmp_path: Path
) -> None:
    port = free_port()
    url = f"rtsp://operator:hunter2@127.0.0.1:{camera.port}/ball?key=sesame"
    running = stream(url, "--jsonl", "rows.jsonl", "--csv", "rows.csv", "--images", "saved", "--http", str(port))
    running.wait_for("source_up")
    until(lambda: len(rows_of(tmp_path / "rows.jsonl")) >= 20)
    assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
    assert get(f"http://127.0.0.1:{port}/readyz") == (200, "ready\n")
    metrics = get(f"http://127.0.0.1:{port}/metrics")[1]
    assert running.stop(signal.SIGTERM) == 0

    rows = rows_of(tmp_path / "rows.jsonl")
    assert len({row["id"] for row in rows}) == len(rows)
    assert [row["frame"] for row in rows] == sorted(row["frame"] for row in rows)
    for row in rows:
        assert row["error"] is None
        assert row["total_ms"] == pytest.approx(row["age_ms"] + row["infer_ms"] + row["search_ms"], abs=0.2)
    assert sum(1 + row["dropped"] + row["skipped"] for row in rows) == rows[-1]["frame"] + 1
    # The toy kit does not know balls: each frame is rejected, raises an event, and is saved.
    rejects = running.entries("reject")
    assert [entry["id"] for entry in rejects] == [row["id"] for row in rows]
    saved = list((tmp_path / "saved").rglob("*.jpg"))
    assert 0 < len(saved) <= len(rows)
    csv_rows = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    assert len(csv_rows) == len(rows) + 1
    assert [entry["kind"] for entry in running.entries() if "kind" in entry][-1] == "stopped"

    everything = running.log.read_text() + metrics + "".join(json.dumps(row) for row in rows) + str(saved)
    assert [secret for secret in SECRETS if secret in everything] == []


def test_ctrl_c_ends_it_in_order_while_a_camera_and_a_broker_are_away(
    stream: Callable, free_port: Callable[[], int], tmp_path: Path
) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    running = stream(f"rtsp://127.0.0.1:{free_port()}/x", "--source", folder, "--mqtt", f"127.0.0.1:{free_port()}")
    running.wait_for("source_up")
    assert running.stop(signal.SIGINT) == 0
    assert running.entries("stopped")


@pytest.mark.parametrize("station", [None, "line3"])
def test_its_state_is_in_the_folder_that_doctor_checks(
    in_process: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, station: str | None
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    (tmp_path / "in").mkdir()
    in_process(tmp_path / "in", state=None, **({"station": station} if station else {}))
    assert (state_folder(station=station) / FILE).is_file()


def test_several_sources_share_one_stream(
    camera: Any, in_process: Callable, until: Callable, rows_of: Callable, tmp_path: Path
) -> None:
    running = in_process(camera.url("ball"), camera.url("still"), results={"jsonl": str(tmp_path / "rows.jsonl")})
    names = {f"127.0.0.1-{place}" for place in ("ball", "still")}
    until(lambda: {row["source"] for row in rows_of(tmp_path / "rows.jsonl")} == names)
    assert running.stop()


def test_it_ends_by_itself_after_the_last_frame_of_a_video(
    in_process: Callable, rows_of: Callable, toy: ModuleType, tmp_path: Path
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for number in range(40):
        writer.write(toy.draw(number)[..., ::-1])
    writer.release()
    running = in_process(tmp_path / "clip.avi", results={"jsonl": str(tmp_path / "rows.jsonl")})
    assert running.wait()
    rows = rows_of(tmp_path / "rows.jsonl")
    assert [row["frame"] for row in rows] == list(range(40))
    assert [row["position"] for row in rows] == pytest.approx([number / 25 for number in range(40)], abs=0.001)
    assert {row["dropped"] for row in rows} == {0}
    assert "40 frames" in running.wait_for("source_ended")["message"]
    assert running.entries("stopped")[0]["message"].endswith("all sources have ended")


@pytest.mark.parametrize(("name", "shown"), [(b"/shift 3", "shift 3"), (b"/shift \xfc", "shift \\xfc")])
def test_events_are_valid_for_names_that_are_not_utf8(
    in_process: Callable,
    free_port: Callable[[], int],
    toy: ModuleType,
    save: Callable,
    tmp_path: Path,
    name: bytes,
    shown: str,
) -> None:
    """The software of a camera writes names in its own code page; JSON has Unicode only."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + name))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    for part in (b"part \xff.png", "größer.png".encode(), b"new\nline.png"):
        save(folder / os.fsdecode(part), toy.draw(200, "scratch"))
    hook = f"http://127.0.0.1:{free_port()}/hook"
    running = in_process(folder, webhook={"url": hook}, images={"folder": str(tmp_path / "saved")})
    running.wait_for("reject", 3)
    assert running.stop()
    with State.open(tmp_path / "state", channels=["webhook"]) as state:
        events = [Event.model_validate_json(each.body) for each in state.waiting("webhook", limit=100)]
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-1]) == ("started", "stopped")
    assert Counter(kinds) == {"started": 1, "source_up": 1, "reject": 3, "stopped": 1}
    assert len({event.id for event in events}) == len(events)
    rejects = {(event.path or "").rpartition("/")[2]: event for event in events if event.kind == "reject"}
    assert set(rejects) == {"part \\xff.png", "größer.png", "new\nline.png"}
    assert all(f"/{shown}/" in (event.path or "") and event.verdict == "reject" for event in rejects.values())
    assert {event.id for event in rejects.values()} == {entry["id"] for entry in running.entries("reject")}


def test_a_kit_is_replaced_without_dropping_a_frame(
    camera: Any,
    stream: Callable,
    until: Callable,
    rows_of: Callable,
    kit: Path,
    toy_kit: Path,
    change_byte: Callable,
    tmp_path: Path,
) -> None:
    """By SIGHUP and by a request. A damaged kit is refused, and the previous one remains active."""
    running = stream(camera.url(), "--jsonl", "rows.jsonl", kit=kit)
    running.wait_for("source_up")
    assert "is active" in request_reload(tmp_path / "state", timeout=TIMEOUT)
    running.wait_for("kit_loaded")

    replace(kit, toy_kit)
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("kit_loaded", 2)

    change_byte(kit / "model.onnx", 100)
    with pytest.raises(KitError, match=r"the previous kit remains active: .*SHA-256"):
        request_reload(tmp_path / "state", timeout=TIMEOUT)
    running.wait_for("kit_refused")

    count = len(rows_of(tmp_path / "rows.jsonl"))
    until(lambda: len(rows_of(tmp_path / "rows.jsonl")) > count + 10)
    assert running.stop() == 0
    rows = rows_of(tmp_path / "rows.jsonl")
    assert all(row["error"] is None and row["score"] is not None for row in rows)
    with pytest.raises(UsageError, match="no stream answered"):
        request_reload(tmp_path / "state", timeout=0.2)


def test_an_event_names_the_kit_that_scored_its_frame_when_another_one_is_active_by_then(
    in_process: Callable,
    kit: Path,
    toy: ModuleType,
    save: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload can come at any time between the score and the event."""
    (tmp_path / "in").mkdir()
    running = in_process(tmp_path / "in", kit=str(kit), images={"folder": str(tmp_path / "saved")})
    sha256 = running.wait_for("started")["kit"]
    save_image = Recorder.save_image

    def reload_first(*arguments: Any, **options: Any) -> Path | None:
        monkeypatch.undo()
        with monkeypatch.context() as patch:
            patch.setattr(toy, "K", 3)
            toy.make(tmp_path / "other.kit")
        replace(kit, tmp_path / "other.kit")
        running.stream.reload()
        running.wait_for("kit_loaded")
        return save_image(*arguments, **options)

    monkeypatch.setattr(Recorder, "save_image", reload_first)
    save(tmp_path / "in" / "first.png", toy.draw(200, "scratch"))
    first = running.wait_for("reject")
    save(tmp_path / "in" / "second.png", toy.draw(201, "scratch"))
    second = running.wait_for("reject", 2)
    loaded = running.wait_for("kit_loaded")["kit"]
    assert loaded != sha256
    assert (first["kit"], second["kit"]) == (sha256, loaded)


@pytest.fixture
def systemd(tmp_path: Path) -> Any:
    """The socket of the service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(TIMEOUT)
        yield manager


def test_systemd_is_notified_and_a_suspended_process_sends_no_watchdog(
    systemd: socket.socket, stream: Callable, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    running = stream(tmp_path / "in", env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert systemd.recv(100) == b"READY=1"
    assert [systemd.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2

    running.process.send_signal(signal.SIGHUP)
    received = [systemd.recv(100) for _ in range(3)]
    assert any(state.startswith(b"RELOADING=1\nMONOTONIC_USEC=") for state in received)
    assert b"READY=1" in received

    running.process.send_signal(signal.SIGSTOP)
    systemd.settimeout(0.5)
    with contextlib.suppress(TimeoutError):  # states that were sent before
        systemd.recv(100)
    systemd.settimeout(2.5)
    with pytest.raises(TimeoutError):
        systemd.recv(100)
    running.process.send_signal(signal.SIGCONT)
    systemd.settimeout(TIMEOUT)
    assert systemd.recv(100) == b"WATCHDOG=1"

    running.process.send_signal(signal.SIGTERM)
    while (state := systemd.recv(100)) != b"STOPPING=1":
        assert state == b"WATCHDOG=1"
    assert running.process.wait(TIMEOUT) == 0


def test_the_camera_process_ends_when_the_stream_is_killed(camera: Any, stream: Callable, until: Callable) -> None:
    running = stream(camera.url())
    running.wait_for("source_up")
    threads = Path(f"/proc/{running.process.pid}/task")
    pids = {pid for task in threads.iterdir() for pid in (task / "children").read_text().split()}
    assert pids
    mapped = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "memfd:msc-edge frame" in mapped
    assert "/dev/shm/psm_" not in mapped, "it would stay if all processes were killed"
    running.process.kill()
    running.process.wait()
    until(lambda: not any(is_alive(int(pid)) for pid in pids))


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
