"""A studio in a process of its own, and drawn images."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlencode

import pytest

from msc_edge.demo.drawn_images import Sizes, draw_data_set

TIMEOUT = 60.0


@dataclass
class Studio:
    """A running `msc-edge studio`."""

    process: subprocess.Popen[str]
    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return response, response.read().decode(errors="replace")
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        response, text = self.send("GET", path, Accept="text/html", **headers)
        return response.status, text

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        """Send a form: the status, and where it leads, or the page."""
        kind = "application/x-www-form-urlencoded"
        response, text = self.send("POST", path, urlencode(fields), Content_Type=kind, Accept="text/html")
        return response.status, response.headers.get("location", text)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=TIMEOUT)


@pytest.fixture(scope="session")
def start_studio() -> Iterator[Callable[..., Studio]]:
    """Start a studio: `start_studio(folder, *options, **environment)`. All are stopped at the end of the session."""
    running: list[Studio] = []

    def begin(folder: Path, *options: object, **environment: str) -> Studio:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "msc_edge",
                "studio",
                str(folder),
                "--port",
                "0",
                "--no-browser",
                *map(str, options),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        assert process.stderr
        line = process.stderr.readline()
        found = re.search(r"http://[^;]*:(\d+);", line)
        assert found, line + process.stderr.read()
        running.append(Studio(process, folder, int(found[1])))
        return running[-1]

    yield begin
    for studio in running:
        if studio.process.poll() is None:
            studio.kill(signal.SIGTERM)


@pytest.fixture(scope="session")
def studio(start_studio: Callable[..., Studio], tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A studio that tests share; they must not stop it."""
    return start_studio(tmp_path_factory.mktemp("studio") / "work")


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn parts: train/good with a duplicate and a broken file, test/good and defects."""
    folder = tmp_path_factory.mktemp("parts") / "data"
    draw_data_set(folder, seed=3, sizes=Sizes(train=8, test=2, each_defect=1), threads=1)
    good = sorted((folder / "train" / "good").iterdir())
    shutil.copy(good[0], good[0].with_name("zz_copy.png"))
    good[0].with_name("zz_broken.png").write_bytes(good[0].read_bytes()[:2000])
    return folder
