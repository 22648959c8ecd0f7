"""A real camera, a real broker, the real process of a stream, and disks that can be filled."""

import contextlib
import ctypes
import getpass
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import tomli_w
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.service import Stream

HERE = Path(__file__).parent
CLIP = HERE.parents[3] / "shared" / "data" / "video" / "bottle-detection.mp4"
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
SYSTEM_PYTHON = "/usr/bin/python3"
_TIME = datetime(2026, 11, 30, 23, 59, 59, 250_000, tzinfo=UTC)
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

    clip: Path | None
    port: int
    process: subprocess.Popen[str] | None = None
    certificate: Path | None = None
    """With its key in the same file; then the address is rtsps://."""
    parts: tuple[Path, Path] | None = None
    """Two images, PNG, in place of a clip: `command("part 1")` shows the second one at /parts."""

    def url(self, place: str = "ball") -> str:
        return f"{'rtsps' if self.certificate else 'rtsp'}://127.0.0.1:{self.port}/{place}"

    def start(self, width: int = 320, height: int = 240) -> None:
        arguments = [self.port, self.clip, width, height, *(2 * [self.certificate] if self.certificate else [])]
        if self.parts:
            arguments = [self.port, "--parts", *self.parts]
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
    require_rtsp_server()
    out = tmp_path_factory.mktemp("camera") / "clip.ts"
    pipeline = f"filesrc location={CLIP} ! qtdemux ! h264parse ! mpegtsmux ! filesink location={out}"
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True, capture_output=True)
    return out


def require_rtsp_server() -> None:
    """Skip a test where GStreamer's RTSP server is not installed."""
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
def part_camera(tmp_path: Path, toy: ModuleType, save: Callable, free_port: Callable[[], int]) -> Iterator[RtspServer]:
    """A camera that shows a good part at /parts, and one with a defect after `command("part 1")`."""
    require_rtsp_server()
    files = tmp_path / "good.png", tmp_path / "bad.png"
    for file, image in zip(files, (toy.draw(100), toy.draw(500, "stain")), strict=True):
        save(file, np.kron(image, np.ones((5, 5, 1), np.uint8)))  # 320x240
    server = RtspServer(None, free_port(), parts=files)
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


@pytest.fixture(scope="session")
def decision_of() -> Callable[..., Decision]:
    """A decision of a source; without a verdict for a frame that was not scored."""

    def make(source: str, verdict: str | None, *, score: float = 0.5) -> Decision:
        frame = Frame(source, 0, _TIME, 0.0, None)
        if verdict is None:
            return Decision("id", frame, None, None)
        result = Result(
            score=score,
            image_score=score,
            patch_score=None,
            p_value=0.5,
            verdict=verdict,  # pyright: ignore[reportArgumentType]
            limit=1.0,
            regions=(),
            nearest_images=(NearestImage(0, "part_00.png", 0.1),),
            model="fp32",
            kit="0123456789abcdef" * 4,
        )
        return Decision(f"{source} {score}", frame, result, Stages(1.0, 2.0, 3.0, 6.5))

    return make


class Broker:
    """mosquitto. It keeps its subscribers and their messages across a restart."""

    def __init__(self, folder: Path, port: int, until: Callable[..., None]) -> None:
        self.folder = folder
        self.port = port
        self._until = until
        self.extra: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *extra: str) -> None:
        """Start with additional lines of configuration, which stay after a restart."""
        assert MOSQUITTO
        self.extra += extra
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            *self.extra,
        ]
        if not any(line.startswith("password_file") for line in lines):
            lines.append("allow_anonymous true")
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", config], stdout=log, stderr=log)
        self._until(self._listens, "the broker listens")

    def _listens(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise AssertionError((self.folder / "mosquitto.log").read_text())
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Silent, and still connected."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)


class Received(NamedTuple):
    topic: str
    payload: bytes
    retained: bool

    @property
    def id(self) -> str:
        return json.loads(self.payload)["id"]


class Watcher:
    """Subscribes to everything, and receives all messages across a restart of the broker."""

    def __init__(self, port: int, *, name: str = "watcher", username: str | None = None, password: str = "") -> None:
        self.received: list[Received] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._append
        self._client.reconnect_delay_set(1, 1)
        if username:
            self._client.username_pw_set(username, password)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(20)

    def _subscribe(self, client: Client, *_: object) -> None:
        client.subscribe("#", qos=1)

    def _append(self, client: Client, data: object, message: MQTTMessage) -> None:
        del client, data
        self.received.append(Received(message.topic, bytes(message.payload), message.retain))

    def on(self, topic: str) -> list[bytes]:
        return [one.payload for one in list(self.received) if one.topic == topic]

    def ids(self) -> list[str]:
        return [one.id for one in list(self.received) if "/event/" in one.topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path, free_port: Callable[[], int], until: Callable[..., None]) -> Iterator[Broker]:
    """A broker, not started yet."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(folder, free_port(), until)
    yield broker
    broker.kill()


@pytest.fixture
def watch() -> Iterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def start(port: int, *, name: str = "watcher", username: str | None = None, password: str = "") -> Watcher:
        watchers.append(Watcher(port, name=name, username=username, password=password))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.close()
