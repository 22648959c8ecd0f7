"""Scenes of a line, and a camera that sends them by RTSP without GStreamer."""

import re
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count

import cv2
import numpy as np
import pytest

PACKET = 1200  # bytes of an image in a packet
RATE = 20  # frames a second
DESCRIPTION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:video\r\n"


def draw_scene(number: int, *, height: int = 240, width: int = 320) -> np.ndarray:
    """A part on a table, uint8 (height, width, 3) RGB: with sharp edges, a label, and its own position and marks."""
    image = np.full((height, width, 3), (150, 140, 130), np.uint8)
    image[: height // 3] = (95, 100, 105)
    random = np.random.default_rng(number)
    left, top = (int(each) for each in random.integers((20, 40), (width - 140, height - 120)))
    cv2.rectangle(image, (left, top), (left + 110, top + 70), (60, 70, 190), -1)
    cv2.circle(image, (left + 25, top + 35), 16, (230, 225, 210), -1)
    for _ in range(6):
        x, y = (int(each) for each in random.integers((left + 50, top + 5), (left + 95, top + 55)))
        cv2.rectangle(image, (x, y), (x + 8, y + 8), (240, 200, 40), -1)
    return image


def with_noise(image: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def scene() -> Callable[..., np.ndarray]:
    return draw_scene


@pytest.fixture(scope="session")
def noisy() -> Callable[[np.ndarray, float, int], np.ndarray]:
    return with_noise


def parts_of(jpeg: bytes) -> tuple[bytes, bytes]:
    """The two quantisation tables of a JPEG, and its entropy-coded data."""
    tables, place = b"", 2
    while True:
        marker, length = struct.unpack_from(">HH", jpeg, place)
        if marker == 0xFFDB:
            for start in range(place + 4, place + 2 + length, 65):
                tables += jpeg[start + 1 : start + 65]
        place += 2 + length
        if marker == 0xFFDA:
            return tables, jpeg[place:-2]


def packets_of(jpeg: bytes, width: int, height: int, sequence: Iterator[int], clock: int) -> Iterator[bytes]:
    """The RTP packets of an image with colours at half the resolution, each with the frame of RTSP around it."""
    tables, data = parts_of(jpeg)
    for offset in range(0, len(data), PACKET):
        last = offset + PACKET >= len(data)
        head = struct.pack(">BBHII", 0x80, 26 | (0x80 if last else 0), next(sequence) & 0xFFFF, clock, 1)
        head += struct.pack(">IBBBB", offset, 1, 255, width // 8, height // 8)
        if offset == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        body = head + data[offset : offset + PACKET]
        yield struct.pack(">cBH", b"$", 0, len(body)) + body


@contextmanager
def jpeg_by_rtsp(jpeg: Callable[[int], bytes], *, width: int, height: int) -> Iterator[str]:
    """A camera that sends these frames by RFC 2326 and RFC 2435, to each viewer from the first one on: its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while request := self._request():
                    method, number = request.split()[0], re.findall(r"CSeq: (\d+)", request)[0]
                    answer = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n"
                    if method == "DESCRIBE":
                        answer += f"Content-Type: application/sdp\r\nContent-Length: {len(DESCRIPTION)}\r\n\r\n"
                        answer += DESCRIPTION
                    elif method == "SETUP":
                        answer += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
                    else:
                        answer += "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n"
                    self.wfile.write(answer.encode())
                    if method == "PLAY":
                        self._play()

        def _request(self) -> str:
            lines = []
            while line := self.rfile.readline().decode("latin-1").strip():
                lines.append(line)
            return "\n".join(lines)

        def _play(self) -> None:
            sequence = count()
            for number in count():
                clock = number * 90_000 // RATE & 0xFFFFFFFF
                for packet in packets_of(jpeg(number), width, height, sequence, clock):
                    self.wfile.write(packet)
                time.sleep(1 / RATE)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"rtsp://viewer:hunter2@127.0.0.1:{server.server_address[1]}/line"
        server.shutdown()


@pytest.fixture(scope="session")
def rtsp_camera() -> Callable[..., AbstractContextManager[str]]:
    return jpeg_by_rtsp
