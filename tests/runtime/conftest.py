"""Results that tests of several modules build rows, summaries and pages from, and real servers: `msc-edge serve` in a
process of its own, on a free port.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.runtime import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import NearestImage, Result

TIMEOUT = 60.0
_START = "is served at "


@pytest.fixture(scope="session")
def scored() -> Callable[..., ImageResult]:
    """Build the result of one scored image; keyword arguments replace fields of its `Result`."""

    def build(path: str = "a.png", *, milliseconds: float = 2.34, **fields: Any) -> ImageResult:
        values: dict[str, Any] = {
            "score": 0.1234567,
            "image_score": 0.0912346,
            "patch_score": 1.2345678,
            "p_value": 1 / 13,
            "verdict": "reject",
            "limit": 0.1,
            "regions": (AnomalousRegion(8, 9, 30, 40, 777, 1.2345678, 11, 12, 21, 22),),
            "nearest_images": (NearestImage(3, "n.png", 0.1), NearestImage(0, "o.png", 0.1469134)),
            "model": "fp32",
            "kit": "ab" * 32,
        }
        return ImageResult(path, Result(**{**values, **fields}), milliseconds)

    return build


@pytest.fixture(scope="session")
def patches(patch_kit: Path) -> Detector:
    """The detector of the toy kit with patches."""
    return Detector.load(patch_kit, threads=1)


@dataclass(frozen=True)
class Answer:
    """A response that was received completely."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        return self.headers.get_content_type()


@dataclass
class Server:
    """A running `msc-edge serve`."""

    process: subprocess.Popen[str]
    port: int
    started: str
    """The line that it printed at its start."""

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document, with which every answer is compared."""
        return self._send("/openapi.json", "GET", None, {}, encode_chunked=False).json

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def request(
        self,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        method: str | None = None,
        encode_chunked: bool = False,
    ) -> Answer:
        """Send a request on a connection of its own, POST where there is a body. The answer is as the document says."""
        method = method or ("GET" if body is None else "POST")
        if body is not None and not any(name.lower() == "content-type" for name in headers or {}):
            headers = {"Content-Type": "image/png", **(headers or {})}
        answer = self._send(path, method, body, headers or {}, encode_chunked=encode_chunked)
        check(self.document, method, path.partition("?")[0], answer)
        return answer

    def _send(self, path: str, method: str, body: Any, headers: dict[str, str], *, encode_chunked: bool) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers, encode_chunked=encode_chunked)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; see `end`."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Wait for the end: the exit code, and what was printed after the start."""
        _, printed = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, printed


def check(document: dict[str, Any], method: str, path: str, answer: Answer) -> None:
    """Compare an answer with the OpenAPI document: its status, content type, headers and JSON."""
    operations = document["paths"].get(path)
    if operations is None:
        assert answer.status in (401, 404)
        return
    if method.lower() not in operations:
        assert answer.status == 405
        (method,) = operations
    described = operations[method.lower()]["responses"][str(answer.status)]
    assert list(described["content"]) == [answer.kind]
    assert all(name in answer.headers for name in described.get("headers", {}))
    if answer.kind == "application/json":
        schema = {**described["content"][answer.kind]["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(answer.json)


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Server]]:
    """Start a server: `start(kit, *options, **environment)`. All are stopped at the end of the session."""
    running: list[Server] = []

    def begin(kit: Path, *options: object, **environment: str) -> Server:
        process = subprocess.Popen(
            [sys.executable, "-m", "msc_edge", "serve", str(kit), "--port", "0", *map(str, options)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert process.stderr
        line = process.stderr.readline()
        assert _START in line, line + process.stderr.read()
        port = int(line.partition(_START)[2].partition(";")[0].rpartition(":")[2])
        running.append(Server(process, port, line))
        return running[-1]

    yield begin
    for server in running:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(start: Callable[..., Server], patch_kit: Path) -> Server:
    """A server of the toy kit with patches; tests must not stop it."""
    return start(patch_kit, "--workers", 2, "--max-bytes", 200_000, "--queue", 32)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem, a certificate of localhost that signed itself, and its key.pem."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key.pem"),
            *("-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def form() -> Callable[..., tuple[bytes, dict[str, str]]]:
    """The body and the headers of a multipart form with one file."""

    def build(data: bytes, *, name: str = "image", file_name: str = "part.png", end: bytes = b"--\r\n") -> Any:
        head = f'--cut\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--cut" + end
        return body, {"Content-Type": "multipart/form-data; boundary=cut"}

    return build


@pytest.fixture(scope="session")
def run_without() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line where a package cannot be imported."""

    def run(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import sys\n"
            "class Missing:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.partition('.')[0] == {package!r}:\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "sys.meta_path.insert(0, Missing())\n"
            "from msc_edge.cli import main\n"
            "main()"
        )
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    return run
