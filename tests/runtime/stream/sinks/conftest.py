"""A real broker and a real HTTP server that can be killed, suspended and made to fail."""

import getpass
import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from msc_edge.runtime.stream.events import Event, EventKind, new_id, now

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture
def make_event() -> Callable[..., Event]:
    def make(kind: EventKind = "reject", source: str | None = "cam1") -> Event:
        return Event(id=new_id(), kind=kind, time=now(), station="line3", source=source, message="scratched")

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


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Server:
    """An HTTP server that keeps all requests. `answer` gives the status for an event id."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[Request] = []
        self.answer: Callable[[str], int] = lambda _: 200
        self.answering = threading.Event()
        self.answering.set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def accepted(self) -> list[str]:
        return [one.id for one in list(self.requests) if one.status < 300]

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.answering.wait(60)
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = outer.answer(headers["webhook-id"])
                outer.requests.append(Request(self.path, headers, body, status))
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Some tests close the connection."""

        self._server = Quiet(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stall(self) -> None:
        """Accept requests, and do not answer."""
        self.answering.clear()

    def stop(self) -> None:
        """Close the port."""
        self.answering.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def server(free_port: Callable[[], int]) -> Iterator[Server]:
    """A server, not started yet."""
    server = Server(free_port())
    yield server
    server.stop()
