"""The process of the page: it cannot stop the stream, and what it has not stored is not lost."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from msc_edge.runtime.stream.config_sections import WebConfig
from msc_edge.runtime.stream.control import request_reload
from msc_edge.runtime.stream.page.feed import PageFeed
from msc_edge.runtime.stream.page.process import PageProcess
from msc_edge.runtime.stream.page.snapshot import StationStatus


def findings(station) -> list[str]:
    """The names of the image files in the gallery, the oldest first."""
    page = station.get("/parts").text
    numbers = sorted(int(part.partition('"')[0].partition("?")[0]) for part in page.split('href="/parts/')[1:])
    pages = [station.get(f"/parts/{number}").text for number in numbers]
    return [name for page in pages for name in re.findall(r"/incoming/(\w+)\.png", page)]


def test_a_killed_page_comes_back_and_shows_what_was_found_meanwhile(start_station) -> None:
    station = start_station()
    station.inspect("before", 200, "scratch")
    os.kill(station.page_process(), signal.SIGKILL)
    for name in ("meanwhile", "later"):
        station.save(station.incoming / f"{name}.png", station.toy.draw(200, "stain"))
    station.until(lambda: "it is started again" in station.log.read_text(), "the end is logged")
    station.until(lambda: station.inspected() == 3, "all are counted")
    assert sorted(findings(station)) == ["before", "later", "meanwhile"]
    assert station.get("/readyz").text == "ready\n"
    assert station.stop() == 0


def test_the_last_findings_are_stored_when_the_stream_ends(start_station) -> None:
    station = start_station()
    station.save(station.incoming / "last.png", station.toy.draw(200, "empty"))
    station.until(lambda: "rejected" in station.log.read_text(), "it is rejected")
    child = station.page_process()
    assert station.stop() == 0
    assert not Path(f"/proc/{child}").exists()
    again = start_station(state=station.state)
    assert findings(again) == ["last"]
    assert again.inspected() == 1


def test_the_page_ends_with_a_killed_stream(start_station) -> None:
    station = start_station()
    child = station.page_process()
    station.process.kill()
    station.process.wait()
    while Path(f"/proc/{child}").exists():  # until the limit of the test run
        time.sleep(0.02)


@pytest.mark.slow
def test_a_stream_that_hangs_is_not_healthy_and_its_page_says_so(start_station, opened) -> None:
    station = start_station()
    with opened(station, allowed="503") as page:
        page.goto(station.address)
        page.get_by_text("The station is ready.").wait_for()
        station.process.send_signal(signal.SIGSTOP)
        try:
            page.get_by_text("The stream has not answered for").wait_for()
            assert station.send("GET", "/healthz").status == 503
            assert station.send("GET", "/readyz").status == 503
            assert station.send("GET", "/metrics").status == 503
        finally:
            station.process.send_signal(signal.SIGCONT)
        page.get_by_role("alert").wait_for(state="hidden")
    assert station.send("GET", "/healthz").status == 200


@pytest.mark.slow
def test_a_page_that_hangs_stops_neither_frames_nor_the_end(start_station) -> None:
    station = start_station()
    os.kill(station.page_process(), signal.SIGSTOP)
    for number in range(20):
        station.save(station.incoming / f"{number}.png", station.toy.draw(200, "stain"))
    station.until(lambda: station.log.read_text().count("rejected, score") == 20, "all are scored")
    assert station.stop() == 0


@pytest.mark.slow
def test_a_page_that_hangs_is_replaced(tmp_path: Path, until) -> None:
    feed = PageFeed(1)
    status = StationStatus("line-3", 0.0, (), (), (), ())
    with socket.create_server(("127.0.0.1", 0)) as free:
        config = WebConfig(port=free.getsockname()[1])
    page = PageProcess(
        config, tmp_path, feed, station="line-3", status=lambda: status, metrics=lambda: b"", hangs_after=8
    )
    try:
        until(lambda: healthy(page.port), "the page answers")
        (first,) = (each for each in multiprocessing.active_children() if each.name == "msc-edge page")
        assert first.pid
        os.kill(first.pid, signal.SIGSTOP)
        until(lambda: first.pid not in [each.pid for each in multiprocessing.active_children()], "it is killed")
        until(lambda: healthy(page.port), "the page answers again")
    finally:
        page.close()


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as found:
            return found.status == 200
    except OSError:
        return False


def refused(*arguments: object, folder: Path, env: dict[str, str] | None = None) -> str:
    """The error of a stream that must not start."""
    (folder / "images").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "msc_edge", "stream", *map(str, arguments), "--state", str(folder / "state")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_port_in_use_is_named_with_its_option(toy_kit: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = refused(toy_kit, "images", "--web", port, folder=tmp_path)
    assert (
        f"port {port} of 127.0.0.1 cannot be opened: another program uses it; choose another port with --web" in error
    )


def test_beyond_this_pc_users_and_a_certificate_are_needed(toy_kit: Path, tmp_path: Path, users: Path) -> None:
    error = refused(toy_kit, "images", "--web", "0.0.0.0:18765", folder=tmp_path)
    for name in ("users", "tls_cert", "tls_key", "insecure = true", "msc-edge user add"):
        assert name in error
    config = tmp_path / "line.toml"
    config.write_text(
        f'kit = "{toy_kit}"\n[[source]]\naddress = "images"\n[web]\nport = 18765\nhost = "0.0.0.0"\nusers = "{users}"\n'
    )
    error = refused("--config", config, folder=tmp_path)
    assert "needs a certificate" in error
    assert "users file" not in error


def test_a_page_for_everybody_must_be_wanted_and_has_no_engineer(start_station) -> None:
    station = start_station(host="0.0.0.0", insecure=True)
    station.inspect("part", 200, "stain")
    assert station.mark(1, "false_alarm").status == 200
    assert [(entry["who"], entry["role"]) for entry in station.audit()] == [("anybody", "operator")]


def test_a_reload_keeps_the_images_of_the_page(start_station) -> None:
    station = start_station()
    request_reload(station.state, timeout=60)
    station.inspect("part", 200, "stain")
    assert station.get("/parts/1/frame.jpg").status == 200
    assert "changed:" not in station.log.read_text()


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "pwdlib"])
def test_without_the_extra_nothing_is_opened(toy_kit: Path, tmp_path: Path, package: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}: raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    paths = os.pathsep.join([str(tmp_path), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])])
    error = refused(toy_kit, "images", "--web", "18766", folder=tmp_path, env={"PYTHONPATH": paths})
    assert f"this needs {package}, which is not installed. Install it with: pip install 'msc-edge[web]'" in error
    assert not (tmp_path / "state").exists()
