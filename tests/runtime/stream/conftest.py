import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CLIP = HERE.parents[3] / "shared" / "data" / "video" / "bottle-detection.mp4"
SYSTEM_PYTHON = "/usr/bin/python3"
PATIENCE = 30.0  # seconds; only a test that fails waits so long


def until(condition: Callable[[], Any], what: str = "it", *, timeout: float = PATIENCE) -> Any:
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come about in {timeout} s"
        time.sleep(0.02)
    return found


@pytest.fixture(name="until", scope="session")
def _until() -> Callable[..., Any]:
    return until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class RtspServer:
    """The camera: started, killed, stopped and started again on one port."""

    clip: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def url(self, place: str = "clip") -> str:
        return f"rtsp://127.0.0.1:{self.port}/{place}"

    def start(self, width: int = 320, height: int = 240) -> None:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(HERE / "rtsp_server.py"), str(self.port), str(self.clip), str(width), str(height)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, line: str) -> None:
        assert self.process
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def send(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe:
                    pipe.close()
            self.process = None


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real clip, in the container that the server can loop."""
    if not CLIP.is_file():
        pytest.skip(f"{CLIP.name} is not there: ../shared is absent")
    has_bindings = (
        Path(SYSTEM_PYTHON).exists()
        and subprocess.run(
            [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if not has_bindings or shutil.which("gst-launch-1.0") is None:
        pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-*)")
    out = tmp_path_factory.mktemp("camera") / "clip.ts"
    pipeline = f"filesrc location={CLIP} ! qtdemux ! h264parse ! mpegtsmux ! filesink location={out}"
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True, capture_output=True)
    return out


@pytest.fixture
def camera(clip: Path) -> Iterator[RtspServer]:
    """A camera that runs."""
    server = RtspServer(clip)
    server.start()
    yield server
    server.kill()


@dataclass
class Running:
    """A `msc-edge stream` process and what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return entries if kind is None else [entry for entry in entries if entry.get("kind") == kind]

    def wait_for(self, kind: str, count: int = 1) -> dict[str, Any]:
        def look() -> list[dict[str, Any]]:
            found = self.entries(kind)
            assert self.process.poll() is None or len(found) >= count, self.log.read_text(encoding="utf-8")
            return found if len(found) >= count else []

        return until(look, f"event {kind}")[count - 1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def stream(tmp_path: Path, toy_kit: Path) -> Iterator[Callable[..., Running]]:
    """Start `msc-edge stream` with these arguments, the toy kit, a state folder of its own, and a log in JSON."""
    started: list[Running] = []

    def start(*arguments: str | Path, kit: Path = toy_kit, env: dict[str, str] | None = None) -> Running:
        log = tmp_path / f"stream-{len(started)}.log"
        command = [sys.executable, "-m", "msc_edge", "stream", kit, *arguments, "--log-format", "json"]
        if "--state" not in arguments:
            command += ["--state", tmp_path / "state"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(each) for each in command],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                cwd=tmp_path,
            )
        running = Running(process, log)
        started.append(running)
        return running

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a real file system of a size such as `64k`, which can be filled."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk of {size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "msc-edge-test", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no disk can be mounted here (root on Linux can)")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill() -> Callable[[Path], Path]:
    """Write a file that takes all the space that is left on a disk; the file."""

    def filled(folder: Path) -> Path:
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))
        return ballast

    return filled


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of 256 kB."""
    return disk_of("256k")
