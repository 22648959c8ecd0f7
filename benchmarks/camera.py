"""For the benchmarks of the stream: the RTSP server of the tests as the camera, and `msc-edge stream` with its log."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import CHECKOUT, json_lines, msc_edge

SERVER = CHECKOUT / "tests" / "runtime" / "stream" / "rtsp_server.py"


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], Any], what: str, *, timeout: float = 120) -> Any:
    """Call `condition` until its result is true, and return it. TimeoutError with `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.005)
    return result


class Camera:
    """An RTSP server: the clip in a loop at /clip, a moving ball of `width` x `height` pixels at /ball."""

    def __init__(self, clip: Path, *, width: int = 640, height: int = 360) -> None:
        self.port = free_port()
        self._clip = clip.with_suffix(".ts") if clip.with_suffix(".ts").exists() else _looped(clip)
        self._size = str(width), str(height)
        self._process: subprocess.Popen[str] | None = None

    def url(self, path: str) -> str:
        """Address of `clip` or `ball`."""
        return f"rtsp://127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        """Start the server; after `kill`, on the same port."""
        command = ["/usr/bin/python3", str(SERVER), str(self.port), str(self._clip), *self._size]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        self._process.stdout.readline()

    def send(self, number: int) -> None:
        """Send a signal to the server."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the server."""
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
    """A running `msc-edge stream`, with its log and its rows in `folder`."""

    def __init__(self, kit: Path, *arguments: str | Path, folder: Path) -> None:
        self.log, self.rows_file = folder / "stream.log", folder / "rows.jsonl"
        files = ["--state", folder / "state", "--jsonl", self.rows_file]
        command = msc_edge("stream", kit, *arguments, "--log-format", "json", *files)
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind in the log."""
        entries = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [entry for entry in entries if entry.get("kind") == kind]

    def rows(self) -> list[dict[str, Any]]:
        """The complete rows so far."""
        return json_lines(self.rows_file)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal; return the seconds until the process has ended. RuntimeError, with the log, when it failed."""
        start = time.monotonic()
        self.process.send_signal(number)
        if self.process.wait(30) not in (0, -signal.SIGKILL):
            raise RuntimeError(self.log.read_text())
        return time.monotonic() - start


def family_of(pid: int) -> list[int]:
    """The ids of a process and all its descendants."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def memory_of(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
