"""A camera whose part the test chooses, and a stream that scores it when it is asked."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

INTERVAL = 0.03  # seconds between two frames
DELAY = 0.6  # seconds from a change of the part until no earlier frame is on its way


class PartCamera:
    """A camera that sends JPEG images by HTTP, of the part that was shown last; no two images are equal."""

    def __init__(self, part: np.ndarray) -> None:
        self._part = part
        self._sends = threading.Event()
        self._sends.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                outer._stream(self.wfile)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/video"

    def _stream(self, out: Any) -> None:
        random = np.random.default_rng(0)
        while True:
            self._sends.wait()
            noisy = self._part + random.normal(0, 0.5, self._part.shape)
            jpeg = cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
            data = jpeg[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                out.write(head.encode() + data + b"\r\n")
            except OSError:
                return
            time.sleep(INTERVAL)

    def show(self, part: np.ndarray) -> None:
        """Another part lies under the camera."""
        self._part = part

    def stop_sending(self) -> None:
        """Silent, and still connected."""
        self._sends.clear()

    def send_again(self) -> None:
        self._sends.set()

    def close(self) -> None:
        self._sends.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def good_part(toy: ModuleType) -> np.ndarray:
    return toy.draw(100)


@pytest.fixture(scope="session")
def stained_part(toy: ModuleType) -> np.ndarray:
    return toy.draw(200, "stain")


@pytest.fixture
def part_camera(good_part: np.ndarray) -> Iterator[PartCamera]:
    camera = PartCamera(good_part)
    yield camera
    camera.close()


@pytest.fixture
def triggered(part_camera: PartCamera, in_process: Callable[..., Any]) -> Callable[..., Any]:
    """Start a stream of the camera above, which is asked by `by`, and wait until frames arrive."""

    def start(by: str, *, options: dict[str, Any] | None = None, **trigger: Any) -> Any:
        source = {"address": part_camera.url, "name": "cam", "trigger_delay": DELAY}
        given = {"source": [source], "trigger": {"by": by, "timeout": 20, **trigger}, **(options or {})}
        running = in_process(**given)
        running.wait_for("source_up", len(given["source"]))
        return running

    return start
