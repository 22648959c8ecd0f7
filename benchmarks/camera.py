"""A camera and a stream for the benchmarks: the RTSP server of the tests, and `msc-edge stream` with what it says."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVER = Path(__file__).resolve().parents[1] / "tests" / "runtime" / "stream" / "rtsp_server.py"


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], Any], *, timeout: float = 120) -> Any:
    """What the condition gives once that is true."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)
    return found


class Camera:
    """An RTSP server with the clip in a loop at /clip, and a moving ball of a chosen size at /ball."""

    def __init__(self, clip: Path, *, width: int = 640, height: int = 360) -> None:
        self.port = free_port()
        self._clip = clip.with_suffix(".ts") if clip.with_suffix(".ts").exists() else _looped(clip)
        self._size = str(width), str(height)
        self._process: subprocess.Popen[str] | None = None

    def url(self, place: str) -> str:
        """Address of /clip or /ball."""
        return f"rtsp://127.0.0.1:{self.port}/{place}"

    def start(self) -> None:
        """Start, or start again on the same port."""
        command = ["/usr/bin/python3", str(SERVER), str(self.port), str(self._clip), *self._size]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        self._process.stdout.readline()

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def _looped(clip: Path) -> Path:
    out = Path(tempfile.mkdtemp(prefix="msc-edge-bench-")) / "clip.ts"
    pipeline = f"filesrc location={clip} ! qtdemux ! h264parse ! mpegtsmux ! filesink location={out}"
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True)
    return out


class Stream:
    """`msc-edge stream`, its log and its rows."""

    def __init__(self, kit: Path, *arguments: str | Path, folder: Path) -> None:
        self.log, self.rows_file = folder / "stream.log", folder / "rows.jsonl"
        command = [sys.executable, "-m", "msc_edge", "stream", kit, *arguments, "--log-format", "json"]
        command += ["--state", folder / "state", "--jsonl", self.rows_file]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([str(each) for each in command], stdout=out, stderr=out)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the log says of one kind of event."""
        entries = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [entry for entry in entries if entry.get("kind") == kind]

    def rows(self) -> list[dict[str, Any]]:
        """The whole rows so far."""
        if not self.rows_file.exists():
            return []
        text = self.rows_file.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Seconds until it had ended."""
        begun = time.monotonic()
        self.process.send_signal(number)
        if self.process.wait(30) not in (0, -signal.SIGKILL):
            raise RuntimeError(self.log.read_text())
        return time.monotonic() - begun


def family_of(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def memory_of(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
