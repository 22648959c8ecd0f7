"""Cameras that send JPEG images by HTTP, with their peculiarities, and the real process that reads them."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msc_edge.images import decode_image
from msc_edge.runtime.stream.sources.mjpeg import ConnectionBrokenError, open_jpeg_stream

TIMEOUT = 30.0
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
            self.end_headers()
        elif place == "/moved":
            self.send_response(302)
            self.send_header("Location", "/video")
            self.end_headers()
        elif place == "/page":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
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
        for number in range(12 if place == "/short" else 100_000):
            data = jpeg(number)
            if place == "/truncated" and number % 3 == 2:
                data = data[: len(data) // 2]
            if place == "/size" and number > 3:
                data = jpeg(number, 240, 320)
            length = "" if place == "/unsized" else f"Content-Length: {len(data)}\r\n"
            part = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + data + b"\r\n"
            if place == "/stall" and number == 5:
                self.wfile.write(part[:-200])
                self.wfile.flush()
                time.sleep(TIMEOUT)
                return
            try:
                self.wfile.write(part)
            except OSError:
                return
            if place != "/short":
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


class Read:
    """Frames of one connection, read in this process."""

    def __init__(self, url: str, most: int, timeout: float = 5) -> None:
        stream = open_jpeg_stream(url, timeout=timeout)
        assert stream
        self.skipped, self.damaged, self.images = 0, [], []
        self.broken = ""
        try:
            for image in stream.frames(skip=self._skip, on_damaged=self.damaged.append):
                self.images.append(image)
                if len(self.images) == most:
                    break
        except ConnectionBrokenError as error:
            self.broken = str(error)

    def _skip(self) -> None:
        self.skipped += 1


@pytest.mark.parametrize("place", ["video", "unsized", "moved"])
def test_images_are_rgb_and_complete(http_camera: str, place: str) -> None:
    read = Read(f"http://{http_camera}/{place}", 6)
    assert (read.skipped, read.damaged) == (0, [])
    assert all(np.array_equal(image, decoded(number)) for number, image in enumerate(read.images))


def test_a_truncated_image_is_skipped_and_counted(http_camera: str) -> None:
    """Every third image is half an image. FFmpeg would fill it with pixels of the previous one."""
    read = Read(f"http://{http_camera}/truncated", 6)
    expected = [decoded(number) for number in (0, 1, 3, 4, 6, 7)]
    assert all(np.array_equal(one, other) for one, other in zip(read.images, expected, strict=True))
    assert read.skipped == len(read.damaged) == 2
    assert "an image was skipped: not an image, or a truncated" in read.damaged[0]


def test_an_image_of_another_size_keeps_its_size(http_camera: str) -> None:
    read = Read(f"http://{http_camera}/size", 6)
    assert [image.shape for image in read.images] == [(120, 160, 3)] * 4 + [(240, 320, 3)] * 2
    assert np.array_equal(read.images[5], decoded(5, 240, 320))


def test_a_connection_that_ends_is_broken(http_camera: str) -> None:
    read = Read(f"http://{http_camera}/short", 100)
    assert len(read.images) == 12
    assert read.broken == "the connection ended"


def test_a_connection_that_stalls_within_an_image_is_broken(http_camera: str) -> None:
    read = Read(f"http://{http_camera}/stall", 100, timeout=0.5)
    assert len(read.images) == 5
    assert read.broken == "no image came in time"


def test_snapshots_are_requested_five_times_a_second_at_most(http_camera: str) -> None:
    started = time.monotonic()
    read = Read(f"http://{http_camera}/snapshot", 5)
    assert time.monotonic() - started >= 4 * 0.2
    assert [np.array_equal(image, decoded(number + 1)) for number, image in enumerate(read.images)] == [True] * 5
    assert len(Camera.requests) == 5


@pytest.mark.parametrize("place", ["page", "locked", "nowhere:x"])
def test_any_other_answer_is_no_such_camera(http_camera: str, place: str) -> None:
    host, _, port = http_camera.partition(":")
    url = f"http://{host}:1/" if place == "nowhere:x" else f"http://{host}:{port}/{place}"
    assert open_jpeg_stream(url, timeout=5) is None


def test_a_password_is_sent_and_not_displayed(
    http_camera: str, watch: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "msc_edge.stream")
    watched = watch(f"http://viewer:sesame+1@{http_camera}/locked?key=sesame+1")
    assert watched.event()[0] == "source_up"
    frame, image = watched.frame()
    assert np.array_equal(image, decoded(frame.index))
    assert "JPEG images by HTTP" in caplog.text
    assert "sesame" not in caplog.text


def test_a_stream_scores_no_image_that_never_existed(
    http_camera: str, in_process: Callable, until: Callable, rows_of: Callable, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    running = in_process(f"http://{http_camera}/truncated", results={"jsonl": str(rows)})
    until(lambda: len(rows_of(rows)) > 12)
    assert running.stop()
    entries: list[dict[str, Any]] = running.entries()
    assert any("an image was skipped: not an image, or a truncated" in entry["message"] for entry in entries)
    found = rows_of(rows)
    assert {row["error"] for row in found} == {None}
    assert all(row["frame"] % 3 != 2 for row in found)
    assert sum(row["dropped"] for row in found) >= 3
