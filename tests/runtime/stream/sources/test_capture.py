"""Sources that cannot be opened, and the reasons that are given."""

import base64
import contextlib
import logging
import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msc_edge.images import decode_image
from msc_edge.runtime.stream.sources.address import parse_address, with_login
from msc_edge.runtime.stream.sources.capture import capture_frames, diagnose
from msc_edge.runtime.stream.sources.grabber import configure_opencv
from msc_edge.runtime.stream.sources.messages import CaptureSettings, ConnectionBrokenError


def settings(address: str) -> CaptureSettings:
    return CaptureSettings(parse_address(address), open_timeout=2, read_timeout=2)


@pytest.mark.parametrize(
    ("address", "seconds", "reason"),
    [
        ("rtsp://u:hunter2@127.0.0.1:CLOSED/clip", 0.1, "cannot be reached: Connection refused"),
        (
            "rtsp://u:hunter2@127.0.0.1:OPEN/audio",
            0.1,
            "sends no video that can be decoded; check path, user",
        ),
        ("rtsp://u:hunter2@127.0.0.1:OPEN/audio", 2.0, "accepts the connection and does not answer in 2 s"),
        ("tcp://127.0.0.1", 0.1, "cannot be opened"),
        ("/dev/video63", 0.1, "check that it is plugged in"),
    ],
)
def test_the_reason_names_what_to_check_and_no_password(
    camera: Any, free_port: Callable[[], int], address: str, seconds: float, reason: str
) -> None:
    address = address.replace("CLOSED", str(free_port())).replace("OPEN", str(camera.port))
    found = diagnose(settings(address), seconds=seconds)
    assert reason in found
    assert "hunter2" not in found


def test_frames_of_opencv_are_bgr_and_a_connection_that_ends_is_broken(
    own_camera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    messages: list[tuple[str, str]] = []
    frames = capture_frames(
        settings(own_camera.url("still")), skip=lambda: None, on_status=lambda *message: messages.append(message)
    )
    image, order = next(frames)
    assert order == "BGR"
    red = image[100, 245]  # of the SMPTE bars
    assert int(red[2]) - red[0] > 90
    assert messages[0][0] == "open"
    assert messages[0][1].startswith("320x240")
    own_camera.kill()
    with pytest.raises(ConnectionBrokenError, match="the connection ended"):
        list(frames)


@pytest.mark.parametrize("address", ["rtsp://127.0.0.1:CLOSED/clip", "/dev/video63"])
def test_a_source_that_cannot_be_opened_yields_nothing(free_port: Callable[[], int], address: str) -> None:
    if Path("/dev/video63").exists():
        pytest.skip("this machine has 64 cameras")
    address = address.replace("CLOSED", str(free_port()))
    assert list(capture_frames(settings(address), skip=lambda: None, on_status=lambda *_: None)) == []


def test_the_reason_is_in_the_event_and_the_log_without_the_password(
    watch: Callable, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "msc_edge.stream")
    watched = watch(f"rtsp://operator:hunter2@127.0.0.1:{free_port()}/clip", lost_after=6)
    kind, reason, _ = watched.event()
    assert kind == "source_lost"
    assert "refused" in reason
    logged = " ".join(record.getMessage() for record in caplog.records) + reason
    assert "***@127.0.0.1" in logged
    assert "hunter2" not in logged
    assert "operator" not in logged


def test_the_certificate_of_an_rtsps_camera_is_checked(tls_camera: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg accepts any certificate by default: another PC could show the images of a good part."""
    for name in ("OPENCV_LOG_LEVEL", "OPENCV_FFMPEG_LOGLEVEL", "OPENCV_VIDEOIO_DEBUG", "OPENCV_FFMPEG_CAPTURE_OPTIONS"):
        monkeypatch.setenv(name, "")  # restored after the test
    address, other_name = tls_camera.url(), tls_camera.url().replace("127.0.0.1", "localhost")

    def first_frame(address: str, **options: Any) -> tuple[int, ...] | str:
        """The shape of the first frame, or the reason why there is none."""
        given = CaptureSettings(parse_address(address), open_timeout=5, read_timeout=5, **options)
        configure_opencv(given)
        frames = capture_frames(given, skip=lambda: None, on_status=lambda *_: None)
        found = next(frames, None)
        frames.close()  # pyright: ignore[reportAttributeAccessIssue]
        return diagnose(given, seconds=0) if found is None else found[0].shape

    assert first_frame(address, ca_file=tls_camera.certificate) == (240, 320, 3)
    assert first_frame(address, insecure=True) == (240, 320, 3)
    assert str(first_frame(address)).startswith("its certificate is not accepted (self")
    assert "mismatch" in first_frame(other_name, ca_file=tls_camera.certificate)
    missing = Path("missing.pem")
    assert first_frame(address, ca_file=missing) == "`ca_file` missing.pem cannot be used: No such file or directory"


def test_the_grabber_does_not_import_opencv_before_its_variables_are_set() -> None:
    """FFmpeg's log would contain passwords, and the timeouts would be ignored."""
    code = "import sys, msc_edge.runtime.stream.sources.grabber; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_login_reaches_an_rtsp_camera_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    password, logins = "p@ss#w/rd?1 %41:", []

    def serve(listener: socket.socket) -> None:
        for _ in ("whether it redirects", "FFmpeg"):
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                while request := connection.recv(4096).decode():
                    found = re.findall("Authorization: Basic (.*)\r", request)
                    logins.extend(found)
                    is_open = found or request.startswith("OPTIONS")
                    answer = "200 OK" if is_open else "401 No\r\nWWW-Authenticate: Basic realm=x"
                    number = re.findall(r"CSeq: (\d+)", request)[0]
                    connection.sendall(f"RTSP/1.0 {answer}\r\nCSeq: {number}\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        url = with_login(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/a", "viewer", password)
        assert list(capture_frames(settings(url), skip=lambda: None, on_status=lambda *_: None)) == []
    assert {base64.b64decode(login).decode() for login in logins} == {f"viewer:{password}"}


def test_only_a_source_of_http_imports_the_http_client() -> None:
    modules = "msc_edge.runtime.stream.service, msc_edge.runtime.stream.sources.capture"
    code = f"import sys, {modules}; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_images_of_an_address_that_was_a_video_first_are_whole() -> None:
    """FFmpeg requests the address again; it would show a cut image with the lower half of the one before."""
    images = [np.random.default_rng(n).integers(0, 256, (64, 64, 3), dtype=np.uint8) for n in range(40)]
    jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
    cut = [data if number % 4 else data[: len(data) // 2] for number, data in enumerate(jpegs)]
    parts = b"".join(b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n" for data in cut)
    head = b"HTTP/1.0 200 OK\r\nContent-Type: %s\r\n\r\n"
    answers = [head % b"video/x-flv" + b"FLV\x01\x05\0\0\0\x09" + bytes(600)]
    answers += [head % b"multipart/x-mixed-replace;boundary=x" + parts] * 5

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            with contextlib.suppress(OSError):
                self.request.sendall(answers.pop(0))

    frames, damaged = [], 0

    def skip() -> None:
        nonlocal damaged
        damaged += 1

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/live"
        with contextlib.suppress(ConnectionBrokenError):
            for frame, order in capture_frames(settings(address), skip=skip, on_status=lambda *_: None):
                assert order == "RGB"
                frames.append(frame.tobytes())
        server.shutdown()
    assert len(answers) < 5, "FFmpeg has requested the address"
    assert len(frames) > 20
    assert damaged > 8
    assert set(frames) <= {decode_image(np.frombuffer(data, np.uint8)).tobytes() for data in jpegs}


def test_jpeg_images_by_rtsp_are_decoded_as_image_files_are(camera: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    messages: list[tuple[str, str]] = []
    frames = capture_frames(
        settings(camera.url("jpeg")), skip=lambda: None, on_status=lambda *message: messages.append(message)
    )
    image, order = next(frames)
    del frames
    assert (image.shape, order) == ((240, 320, 3), "RGB")
    assert int(image[100, 245, 0]) - image[100, 245, 2] > 90  # red, of the SMPTE bars
    assert messages[0][1].startswith("320x240, MJPG")


def test_uncompressed_video_whose_colours_ffmpeg_mixes_up_is_refused(
    camera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4:2:0 by RTSP: every frame was noise in green and violet, a part of it from memory that nobody had written."""
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    frames = capture_frames(settings(camera.url("raw")), skip=lambda: None, on_status=lambda *_: None)
    with pytest.raises(ConnectionBrokenError, match="uncompressed 4:2:0 video cannot be decoded; set the camera to"):
        next(frames)
