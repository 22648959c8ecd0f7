"""Cameras that give JPEG images by HTTP, with all their habits, and the real process that reads them."""

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

PATIENCE = 30.0
LOGIN = base64.b64encode(b"viewer:sesame+1").decode()


def jpeg(number: int, height: int = 120, width: int = 160) -> bytes:
    """Random blocks, so that no two images have one row in common."""
    blocks = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST))[1].tobytes()


class Camera(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        place, _, _ = self.path.partition("?")
        if place == "/folder_lock" and self.headers.get("Authorization") != f"Basic {LOGIN}":
            self.send_response(401)
            self.end_headers()
        elif place == "/moved":
            self.send_response(302)
            self.send_header("Location", "/video")
            self.end_headers()
        elif place == "/snapshot":
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            self.wfile.write(jpeg(len(self.asked)))
        else:
            self.send_response(200)
            self.send_header("Content-Type", 'multipart/x-mixed-replace; boundary="--frame"')
            self.end_headers()
            self._stream(place)

    def _stream(self, place: str) -> None:
        for number in range(100_000):
            data = jpeg(number)
            if place == "/cut" and number % 3 == 2:
                data = data[: len(data) // 2]
            if place == "/size" and number > 10:
                data = jpeg(number, 240, 320)
            length = "" if place == "/unsized" else f"Content-Length: {len(data)}\r\n"
            part = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + data + b"\r\n"
            if place == "/stall" and number == 5:
                self.wfile.write(part[:-200])
                self.wfile.flush()
                time.sleep(PATIENCE)
                return
            try:
                self.wfile.write(part)
            except OSError:
                return
            time.sleep(0.03)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http_camera() -> Iterator[str]:
    Camera.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def is_image(image: np.ndarray, most: int) -> bool:
    """Whether it is one of the images that the camera had, and the whole of it."""
    height, width = image.shape[:2]
    return any(
        np.array_equal(decode_image(np.frombuffer(jpeg(number, height, width), np.uint8)), image)
        for number in range(most)
    )


@pytest.mark.parametrize("place", ["video", "unsized", "moved", "cut"])
def test_each_image_is_one_that_the_camera_had(http_camera: str, watch: Callable, place: str) -> None:
    """Of /cut every third image is half of one: FFmpeg would fill it up with the pixels of the one before."""
    watched = watch(f"http://{http_camera}/{place}")
    assert watched.event()[0] == "source_up"
    frames = [watched.frame() for _ in range(12)]
    assert all(is_image(image, frame.index + 40) for frame, image in frames)
    if place == "cut":
        assert all(frame.index % 3 != 2 for frame, _ in frames)
        assert sum(frame.dropped for frame, _ in frames) >= 3


def test_a_image_of_another_size_is_what_it_is(http_camera: str, watch: Callable) -> None:
    watched = watch(f"http://{http_camera}/size")
    end = time.monotonic() + PATIENCE
    while watched.frame()[1].shape != (240, 320, 3):
        assert time.monotonic() < end


def test_a_password_opens_what_is_locked_and_is_not_shown(
    http_camera: str, watch: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "msc_edge.stream")
    assert watch(f"http://viewer:sesame+1@{http_camera}/folder_lock?key=sesame+1").event()[0] == "source_up"
    assert "sesame" not in caplog.text
    kind, reason, _ = watch(f"http://viewer:wrong@{http_camera}/folder_lock", lost_after=4).event()
    assert (kind, "check path, user, password" in reason) == ("source_lost", True)


def test_one_that_stalls_in_mid_image_is_told(http_camera: str, watch: Callable) -> None:
    watched = watch(f"http://{http_camera}/stall", read_timeout=0.5)
    assert watched.event()[0] == "source_up"
    kind, reason, _ = watched.event()
    assert (kind, "in time" in reason) == ("source_lost", True)


def test_one_image_for_each_request_is_asked_for_at_a_modest_rate(http_camera: str, watch: Callable) -> None:
    watched = watch(f"http://{http_camera}/snapshot")
    assert watched.event()[0] == "source_up"
    frames = [watched.frame()[0] for _ in range(6)]
    gaps = np.diff([frame.captured for frame in frames])
    assert gaps.mean() > 0.15
    assert watched.events.empty(), "it does not come and go with each request"
    assert len(Camera.asked) < 30


def test_a_whole_stream_scores_no_image_that_never_was(
    http_camera: str, stream: Callable, tmp_path: Path, until: Callable
) -> None:
    running = stream(f"http://{http_camera}/cut", "--jsonl", "rows.jsonl")
    rows = tmp_path / "rows.jsonl"
    until(lambda: rows.exists() and rows.read_text().count("\n") > 20)
    assert running.stop() == 0
    entries: list[dict[str, Any]] = running.entries()
    assert any("an image was passed over: not an image, or a truncated" in entry["message"] for entry in entries)
    assert rows.read_text().count('"error": null') == rows.read_text().count("\n")
