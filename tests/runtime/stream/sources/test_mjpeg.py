"""Cameras that send JPEG images by HTTP, and the real process that reads them. Their habits: test_camera_habits."""

import base64
import functools
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msc_edge.images import decode_image
from msc_edge.runtime.stream.sources.mjpeg import body_kind, open_image_stream

LOGIN = base64.b64encode(b"viewer:sesame+1").decode()


def jpeg(number: int, height: int = 120, width: int = 160) -> bytes:
    """Random blocks: no two images have a row in common."""
    blocks = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST))[1].tobytes()


def decoded(number: int, height: int = 120, width: int = 160) -> np.ndarray:
    """The image as RGB."""
    return decode_image(np.frombuffer(jpeg(number, height, width), np.uint8))


class Camera(BaseHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.requests.append(self.path)
        place, _, _ = self.path.partition("?")
        if place == "/locked" and self.headers.get("Authorization") != f"Basic {LOGIN}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="cam"')
            self.end_headers()
        elif place == "/snapshot":
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            self.wfile.write(jpeg(len(self.requests)))
        else:
            self.send_response(200)
            self.send_header("Content-Type", 'multipart/x-mixed-replace; boundary="--frame"')
            self.end_headers()
            self._stream(place)

    def _stream(self, place: str) -> None:
        for number in range(100_000):
            data = jpeg(number)
            if (place == "/truncated" and number % 3 == 2) or (place == "/damaged-from-5" and number >= 5):
                data = data[: len(data) // 2]
            length = f"Content-Length: {len(data)}\r\n"
            part = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + data + b"\r\n"
            try:
                self.wfile.write(part)
            except OSError:
                return
            time.sleep(0.03)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http_camera() -> Iterator[str]:
    Camera.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("head", "content_type", "kind"),
    [
        (jpeg(0), "video/mp4", "images"),
        (b"\x89PNG\r\n\x1a\n", "", "images"),
        (b"\r\n--frame\r\nContent-Type: image/jpeg", "text/html", "images"),
        (b"frame\r\n\r\n" + jpeg(0), "video/mp4", "images"),  # a line between parts that begins without --
        (b"HTTP/1.0 200 OK\r\n\r\n" + jpeg(0), "video/x-msvideo", "images"),
        (b"content-type: image/jpeg\r\n", "application/json", "images"),
        (b"preamble", "multipart/x-mixed-replace", "images"),
        (b"preamble", "video/x-motion-jpeg", "images"),
        (b"", "", "images"),
        ((b"G\x40\x11\x10" + bytes(184)) * 2, "application/octet-stream", "video"),
        (b"FLV\x01\x05", "", "video"),
        (b"\0\0\0\x20ftypisom", "", "video"),
        (b"\x1aE\xdf\xa3", "video/webm", "video"),
        (b"#EXTM3U\n#EXT-X-VERSION:3", "text/plain", "video"),
        (b"unknown", "video/x-unknown", "video"),
        (b"<html>", "video/mp4", "page"),
        (b'{"error": 1}', "", "page"),
        (b"G'day, log in", "text/html", "page"),
    ],
)
def test_the_first_bytes_tell_what_a_body_is(head: bytes, content_type: str, kind: str) -> None:
    assert body_kind(head, content_type) == kind


def test_images_are_rgb(http_camera: str) -> None:
    stream = open_image_stream(f"http://{http_camera}/video", timeout=5)
    assert stream
    image = next(stream.frames(skip=lambda: None, on_damaged=lambda _: None))
    bgr = cv2.imdecode(np.frombuffer(jpeg(0), np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    assert np.array_equal(image, bgr[..., ::-1])


def test_snapshots_are_requested_five_times_a_second_at_most(http_camera: str) -> None:
    stream = open_image_stream(f"http://{http_camera}/snapshot", timeout=5)
    assert stream
    started = time.monotonic()
    frames = stream.frames(skip=lambda: None, on_damaged=lambda _: None)
    for number in range(5):
        assert np.array_equal(next(frames), decoded(number + 1))
    assert time.monotonic() - started >= 4 * 0.2
    assert len(Camera.requests) == 5


@pytest.mark.parametrize("options", [{"insecure": True}, {"ca_file": "camera.crt"}])
def test_a_video_container_is_left_to_ffmpeg_which_checks_the_certificate_too(
    clip: Path, tmp_path: Path, watch: Callable, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    caplog.set_level("INFO", "msc_edge.stream")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x", "-addext"]
    command += ["subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "camera.crt"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "camera.crt", tmp_path / "key")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(clip.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}/{clip.name}"
    if "ca_file" in options:
        options = {"ca_file": str(tmp_path / "camera.crt")}
    watched = watch(url, **options)
    assert watched.wait_for("source_up")
    assert watched.frame()[1].shape == (360, 640, 3)
    assert ("the certificate of the camera is not checked" in caplog.text) == ("insecure" in options)
    server.shutdown()
    server.server_close()


def test_a_password_is_sent_and_not_displayed(
    http_camera: str, watch: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "msc_edge.stream")
    watched = watch(f"http://viewer:sesame+1@{http_camera}/locked?key=sesame+1")
    assert watched.event()[0] == "source_up"
    frame, image = watched.frame()
    assert np.array_equal(image, decoded(frame.index))
    assert "images by HTTP (multipart/x-mixed-replace)" in caplog.text
    assert "sesame" not in caplog.text


def test_a_stream_scores_no_image_that_never_existed(
    http_camera: str, in_process: Callable, until: Callable, rows_of: Callable, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    running = in_process(f"http://{http_camera}/truncated", results={"jsonl": str(rows)})
    until(lambda: len(rows_of(rows)) > 12)
    assert running.stop()
    entries: list[dict[str, Any]] = running.entries()
    assert any("an image was skipped: it is truncated" in entry["message"] for entry in entries)
    found = rows_of(rows)
    assert {row["error"] for row in found} == {None}
    assert all(row["frame"] % 3 != 2 for row in found)
    assert sum(row["dropped"] for row in found) >= 3


def test_a_camera_that_sends_nothing_but_damaged_images_is_lost(http_camera: str, watch: Callable) -> None:
    watched = watch(f"http://{http_camera}/damaged-from-5", lost_after=4)
    watched.wait_for("source_up")
    kind, reason, _ = watched.event()
    assert kind == "source_lost"
    assert "an image was skipped: it is truncated" in reason
    watched.wait_for("source_up")  # its process was started again, and has made another connection
