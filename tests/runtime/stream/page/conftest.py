"""A real stream with its page, in processes of their own."""

import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pytest

from msc_edge.runtime.web.users import Role, add_user

TIMEOUT = 60.0
PASSWORD = "correct horse battery"


@dataclass
class Response:
    """What the page has answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Station:
    """A running `msc-edge stream --web` that watches a folder."""

    process: subprocess.Popen[bytes]
    log: Path
    incoming: Path
    state: Path
    port: int
    toy: ModuleType
    save: Callable
    tls: bool = False
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> Response:
        context = ssl._create_unverified_context() if self.tls else None
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=TIMEOUT, context=context)
            if self.tls
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        )
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies and "Cookie" not in given:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, path, body, given)
            found = connection.getresponse()
            return Response(found.status, found.headers, found.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Response:
        return self.send("GET", path, Accept="text/html", **headers)

    def live(self) -> Any:
        return self.send("GET", "/live").json

    def token(self) -> str:
        """The token that changes need, as a page has it."""
        found = re.search(r'data-token="([^"]*)"', self.get("/").text)
        assert found
        return found[1]

    def mark(self, number: int, action: str, defect: str = "", token: str | None = None) -> Response:
        body = json.dumps({"action": action, "defect": defect})
        return self.send("POST", f"/parts/{number}/mark", body, X_Token=self.token() if token is None else token)

    def log_in(self, name: str, password: str = PASSWORD) -> Response:
        self.cookies.clear()
        found = self.send(
            "POST",
            "/login",
            urlencode({"name": name, "password": password}),
            Content_Type="application/x-www-form-urlencoded",
            Accept="text/html",
        )
        if cookie := found.headers.get("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return found

    def inspect(self, name: str, seed: int = 100, defect: str | None = None) -> None:
        """Put a drawn part into the watched folder, and wait until it is counted."""
        before = self.inspected()
        self.save(self.incoming / f"{name}.png", self.toy.draw(seed, defect) if defect else self.toy.draw(seed))
        self.until(lambda: self.inspected() > before, f"{name} is inspected")

    def inspected(self) -> int:
        counts = self.send("GET", f"/counts?since={time.time() - 3600:.0f}").json["counts"]
        return sum(bin.get(name, 0) for bin in counts for name in ("normal", "warn", "reject", "not_scored"))

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + TIMEOUT
        while not (found := condition()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{what}: not within {TIMEOUT} s\n{self.log.read_text()}"
            time.sleep(0.05)
        return found

    def page_process(self) -> int | None:
        """The id of the process of the page."""
        task = Path(f"/proc/{self.process.pid}/task")
        children = {int(each) for path in task.glob("*/children") for each in path.read_text().split()}
        for child in sorted(children):
            files = [str(path.readlink()) for path in Path(f"/proc/{child}/fd").iterdir()]
            if any(name.endswith("page.sqlite") for name in files):
                return child
        return None

    def audit(self) -> list[dict[str, Any]]:
        file = self.state / "audit.jsonl"
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


@pytest.fixture(scope="session")
def stations(
    tmp_path_factory: pytest.TempPathFactory,
    patch_kit: Path,
    toy: ModuleType,
    save: Callable,
    free_port: Callable[[], int],
) -> Callable[[], AbstractContextManager[Callable[..., Station]]]:
    """`with stations() as start`: see `start_station`. All are stopped at the end."""

    def start(
        *,
        state: Path | None = None,
        kit: Path = patch_kit,
        top: str = "",
        source: str = "",
        source_options: str = "settle = 0.05",
        **web: object,
    ) -> Station:
        folder = tmp_path_factory.mktemp("station")
        incoming, port = folder / "incoming", free_port()
        incoming.mkdir()
        options = "".join(f"{name} = {json.dumps(value)}\n" for name, value in {"port": port, **web}.items())
        config = folder / "line.toml"
        state = state or folder / "state"
        config.write_text(
            f'kit = "{kit}"\nstation = "line-3"\nstate = "{state}"\nthreads = 1\n{top}\n'
            f'[[source]]\naddress = "{source or incoming}"\nname = "camera-1"\n{source_options}\n[web]\n{options}'
        )
        log = folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "msc_edge", "stream", "--config", str(config)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )
        return Station(process, log, incoming, state, port, toy, save, tls="tls_cert" in web)

    @contextmanager
    def opened() -> Iterator[Callable[..., Station]]:
        running: list[Station] = []

        def started(**options: Any) -> Station:
            running.append(start(**options))
            running[-1].until(lambda: _answers(running[-1]), "the page answers")
            return running[-1]

        try:
            yield started
        finally:
            for station in running:
                station.stop()

    return opened


@pytest.fixture
def start_station(stations: Callable[[], AbstractContextManager]) -> Iterator[Callable[..., Station]]:
    """Start a station: options of `[web]`, a source other than a folder with options of its own, another kit.

    It runs until the test ends.
    """
    with stations() as start:
        yield start


def _answers(station: Station) -> bool:
    try:
        return station.send("GET", "/healthz").status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def station(stations: Callable[[], AbstractContextManager]) -> Iterator[Station]:
    """A station with a good part, and three defects. Tests share it, and may mark parts."""
    with stations() as start:
        found = start()
        found.inspect("good", 100)
        for defect in ("empty", "scratch", "stain"):
            found.inspect(defect, 200, defect)
        yield found


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A users file with one user of each role, named like it."""
    file = tmp_path_factory.mktemp("users") / "users.toml"
    roles: tuple[Role, ...] = ("viewer", "operator", "engineer")
    for role in roles:
        add_user(file, role, role=role, password=PASSWORD)
    return file
