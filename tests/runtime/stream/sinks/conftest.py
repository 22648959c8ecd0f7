"""Events, and a real HTTP server that can be stopped and made to fail."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from msc_edge.runtime.stream.events import Event, EventKind, new_id, now


@pytest.fixture
def make_event() -> Callable[..., Event]:
    def make(kind: EventKind = "reject", source: str | None = "cam1") -> Event:
        return Event(id=new_id(), kind=kind, time=now(), station="line3", source=source, message="scratched")

    return make


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
