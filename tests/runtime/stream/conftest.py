"""A real camera, the real process of a stream, and disks that can be filled."""

import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.service import Stream

HERE = Path(__file__).parent
CLIP = HERE.parents[3] / "shared" / "data" / "video" / "bottle-detection.mp4"
SYSTEM_PYTHON = "/usr/bin/python3"
TIMEOUT = 30.0  # seconds; reached by a failing test only


def wait_until(condition: Callable[[], Any], what: str = "the condition", *, timeout: float = TIMEOUT) -> Any:
    """Wait until a condition is true, and return its value."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    """The complete rows of a JSON lines file; none while it does not exist."""

    def read(path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if "\n" in line]

    return read


@dataclass
class RtspServer:
    """A camera that can be started, killed, suspended and started again on one port."""

    clip: Path
    port: int
    process: subprocess.Popen[str] | None = None
    certificate: Path | None = None
    """With its key in the same file; then the address is rtsps://."""

    def url(self, place: str = "ball") -> str:
        return f"{'rtsps' if self.certificate else 'rtsp'}://127.0.0.1:{self.port}/{place}"

    def start(self, width: int = 320, height: int = 240) -> None:
        arguments = [self.port, self.clip, width, height, *(2 * [self.certificate] if self.certificate else [])]
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, HERE / "rtsp_server.py", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def command(self, line: str) -> None:
        assert self.process
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def send_signal(self, number: int) -> None:
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
    """A real clip, in a container that the server can loop."""
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


@pytest.fixture(scope="session")
def camera(clip: Path, free_port: Callable[[], int]) -> Iterator[RtspServer]:
    """A running camera, shared by all tests that leave it as it is."""
    server = RtspServer(clip, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_camera(clip: Path, free_port: Callable[[], int]) -> Iterator[RtspServer]:
    """A running camera that a test may kill, suspend or change."""
    server = RtspServer(clip, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def tls_camera(clip: Path, free_port: Callable[[], int], tmp_path: Path) -> Iterator[RtspServer]:
    """A running camera with RTSP over TLS, and a certificate that it has signed itself."""
    certificate = tmp_path / "camera.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=camera"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-"]
    certificate.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    server = RtspServer(clip, free_port(), certificate=certificate)
    server.start()
    yield server
    server.kill()


@dataclass
class Running:
    """A `msc-edge stream` process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The log, or the events of one kind in it."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return entries if kind is None else [entry for entry in entries if entry.get("kind") == kind]

    def wait_for(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for this number of events of a kind; the last of them."""

        def events() -> list[dict[str, Any]]:
            found = self.entries(kind)
            assert self.process.poll() is None or len(found) >= count, self.log.read_text(encoding="utf-8")
            return found if len(found) >= count else []

        return wait_until(events, f"event {kind}")[count - 1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT)


@pytest.fixture
def stream(tmp_path: Path, toy_kit: Path) -> Iterator[Callable[..., Running]]:
    """Start `msc-edge stream` with arguments, the toy kit, its own state folder, and a JSON log."""
    started: list[Running] = []

    def start(
        *arguments: str | Path, kit: Path = toy_kit, env: dict[str, str] | None = None, new_session: bool = False
    ) -> Running:
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
                start_new_session=new_session,
            )
        running = Running(process, log)
        started.append(running)
        return running

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


class _EntryList(logging.Handler):
    """The log as a list, with the fields of a JSON log."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entries.append({"message": record.getMessage(), **getattr(record, "fields", {})})


@dataclass
class InProcess:
    """A stream in this process and its log: cheaper than a process, where no signal and no exit code is tested."""

    stream: Stream
    log: _EntryList = field(default_factory=_EntryList)
    succeeded: bool | None = None

    def __post_init__(self) -> None:
        LOG.addHandler(self.log)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.succeeded = self.stream.run()

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The log, or the events of one kind in it."""
        return [entry for entry in self.log.entries if kind is None or entry.get("kind") == kind]

    def wait_for(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for this number of events of a kind; the last of them."""
        return wait_until(lambda: self.entries(kind)[count - 1 :], f"event {kind}")[0]

    def wait(self) -> bool | None:
        """Wait until it has ended; whether no internal error ended a source."""
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        LOG.removeHandler(self.log)
        return self.succeeded

    def stop(self) -> bool | None:
        """Stop it; see `wait`."""
        self.stream.stop()
        return self.wait()


@pytest.fixture
def in_process(tmp_path: Path, toy_kit: Path, run: Callable[[Stream], InProcess]) -> Callable[..., InProcess]:
    """Start a stream in this process: sources, and options nested as in the configuration file."""

    def start(*sources: str | Path, **options: Any) -> InProcess:
        given = {"kit": str(toy_kit), "state": str(tmp_path / "state"), "threads": 1, **options}
        return run(Stream(check_config({"source": [{"address": str(address)} for address in sources], **given})))

    return start


@pytest.fixture
def run() -> Iterator[Callable[[Stream], InProcess]]:
    """Run a stream in this process until the end of the test."""
    started: list[InProcess] = []
    level = LOG.level
    LOG.setLevel(logging.INFO)

    def start(stream: Stream) -> InProcess:
        started.append(InProcess(stream))
        return started[-1]

    yield start
    for each in started:
        each.stop()
    LOG.setLevel(level)


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
    """Write a file that takes all free space of a disk; its path."""

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


@pytest.fixture
def bound_by_permissions() -> Iterator[None]:
    """Permissions of files bind this thread and those that it starts, although root runs the tests."""
    if os.name == "nt":
        pytest.skip("needs the permissions of POSIX")
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(header, rights) == 0
    effective = rights[0]
    rights[0] = effective & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, rights) == 0
    yield
    rights[0] = effective
    assert libc.capset(header, rights) == 0


@pytest.fixture
def line(tmp_path: Path) -> Callable[[str | bytes | dict[str, Any]], Path]:
    """Write a configuration file."""

    def write(content: str | bytes | dict[str, Any]) -> Path:
        path = tmp_path / "line.toml"
        if isinstance(content, dict):
            content = tomli_w.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
