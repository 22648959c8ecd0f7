"""RTSP servers that redirect, refuse, stall or send too much."""

import hashlib
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from msc_edge.runtime.stream.sources.address import parse_address, with_login
from msc_edge.runtime.stream.sources.capture import capture_frames
from msc_edge.runtime.stream.sources.messages import CaptureSettings, ConnectionBrokenError
from msc_edge.runtime.stream.sources.rtsp_check import refusal, refuse_redirects

USER, PASSWORD = "viewer", "p@ss:w/rd"
Answer = Callable[[str, str], str]
"""Status and headers, from the method and the whole request."""


@contextmanager
def camera(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A camera: its address without a login, and the requests that it has received."""
    requests: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while True:
                    request = ""
                    while line := self.rfile.readline().decode().strip():
                        request += f"{line}\n"
                    if not request:
                        return
                    requests.append(request)
                    number = re.findall(r"CSeq: (\d+)", request)[0]
                    found = answer(request.partition(" ")[0], request)
                    self.wfile.write(f"RTSP/1.0 {found}\r\nCSeq: {number}\r\n\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/live", requests
        server.shutdown()


def settings(url: str, *, login: bool = True, timeout: float = 5) -> CaptureSettings:
    return CaptureSettings(parse_address(with_login(url, USER, PASSWORD) if login else url), timeout, timeout)


@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE"])
@pytest.mark.parametrize("scheme", ["rtsp", "rtsps"])
def test_a_login_does_not_follow_a_redirect_to_another_server(method: str, scheme: str) -> None:
    """FFmpeg would send it there, in plain text."""
    with camera(lambda *_: "401 No\r\nWWW-Authenticate: Basic realm=x") as (other, received):
        location = other.replace("rtsp", scheme, 1)
        with camera(lambda asked, _: f"302 Moved\r\nLocation: {location}" if asked == method else "200 OK") as (url, _):
            message = rf"it redirects to {scheme}://127.0.0.1:\d+, another server; if that is right"
            with pytest.raises(ConnectionBrokenError, match=message):
                list(capture_frames(settings(url), skip=lambda: None, on_status=lambda *_: None))
            assert re.match(message, refusal(settings(url)))
    assert received == []


def test_before_a_camera_is_opened_no_login_is_sent() -> None:
    """Wrong logins may lock the user; and a server may start its camera for the answer."""
    with camera(lambda *_: "401 No\r\nWWW-Authenticate: Basic realm=x") as (url, received):
        refuse_redirects(settings(url))
    assert "Authorization" not in "".join(received)


def test_a_redirect_within_the_server_is_followed_but_not_in_a_circle() -> None:
    with camera(lambda _, text: "200 OK" if "/new" in text else "301 Moved\r\nLocation: /new") as (url, _):
        refuse_redirects(settings(url))
    with camera(lambda *_: "301 Moved\r\nLocation: /live") as (url, received):
        assert refusal(settings(url)) == "it redirects in a circle; check the address"
    assert len(received) < 10


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("401 X", "the login is refused (RTSP 401); check user and password"),
        ("403 X", "access is refused (RTSP 403)"),
        ("404 X", "the path does not exist (RTSP 404)"),
        ("453 X", "the camera is busy (RTSP 453)"),
        ("503 X", "the camera is busy (RTSP 503)"),
        ("302 X\r\nLocation: rtsp://[", "it redirects to an address that is none"),
        ("200 X\r\nContent-Length: 2000000000", "its description of the video would have 2000000000 bytes"),
        # unknown:
        ("200 X", ""),
        ("500 X", ""),
        ("999", ""),
        ("abc", ""),
        ("200 X\r\nContent-Length: -1", ""),
    ],
)
def test_a_refusal_has_its_reason(status: str, reason: str) -> None:
    with camera(lambda method, _: "200 OK" if method == "OPTIONS" else status) as (url, _):
        found = refusal(settings(url))
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def is_right_digest(text: str, challenge: str) -> bool:
    """Whether a request has a login by Digest as RFC 7616 computes it, for the URL of the request."""
    values = dict(re.findall(r'(\w+)="?([^",]+)"?', text.partition("Authorization: Digest ")[2].partition("\n")[0]))
    method, uri = text.split()[:2]
    if not values or values["uri"] != uri or ("qop" in challenge) != ("qop" in values):
        return False
    one, two = (hashlib.md5(each.encode()).hexdigest() for each in (f"{USER}:a b:{PASSWORD}", f"{method}:{uri}"))
    middle = f"{values['nc']}:{values['cnonce']}:auth:" if "qop" in values else ""
    return values["response"] == hashlib.md5(f"{one}:n0:{middle}{two}".encode()).hexdigest()


@pytest.mark.parametrize(
    "challenge",
    ['Digest realm="a b", nonce="n0"', 'Digest realm="a b", nonce="n0", qop="auth,auth-int", algorithm=MD5'],
)
def test_a_login_by_digest_is_right_and_preferred(challenge: str) -> None:
    offers = f"401 X\r\nWWW-Authenticate: Basic realm=x\r\nWWW-Authenticate: {challenge}"
    with camera(lambda _, text: "404 X" if is_right_digest(text, challenge) else offers) as (url, received):
        assert "RTSP 404" in refusal(settings(url))
        assert "give `username` and `password`" in refusal(settings(url, login=False))
    assert not any("Basic" in text for text in received)


def test_a_login_of_an_unknown_kind_is_left_to_ffmpeg() -> None:
    offer = '401 X\r\nWWW-Authenticate: Digest realm="x", nonce="y", algorithm=SHA-256'
    with camera(lambda *_: offer) as (url, received):
        assert refusal(settings(url)) == ""
    assert len(received) == 1


@pytest.mark.parametrize("sent", ["", "200 OK\r\nX: "])
def test_a_camera_that_stalls_or_sends_a_byte_now_and_then_has_a_deadline(sent: str) -> None:
    stop = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.wfile.write(f"RTSP/1.0 {sent}".encode() if sent else b"")
                while not stop.wait(0.05):
                    self.wfile.write(b"x" if sent else b"")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"rtsp://127.0.0.1:{server.server_address[1]}/live"
        with pytest.raises(ConnectionBrokenError, match="the host accepts the connection and does not answer"):
            refuse_redirects(settings(url, timeout=0.5))
        stop.set()
        server.shutdown()
