from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msc_edge.errors import UnreadableImageError
from msc_edge.images import decode_image
from msc_edge.runtime.stream.sources.image_packets import read_packets

HEIGHT, WIDTH = 48, 64
TKHD_MATRIX = 40  # bytes from the fields of a version 0 box to its matrix
QUARTER_TURN = (0, 0x10000, 0, -0x10000, 0, 0, HEIGHT << 16, 0, 0x40000000)  # clockwise


class Capture:
    """What OpenCV knows about a video of JPEG images."""

    def __init__(self) -> None:
        self.properties: dict[int, float] = {
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"),
            cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT,
            cv2.CAP_PROP_FRAME_WIDTH: WIDTH,
        }

    def get(self, name: int) -> float:
        return self.properties.get(name, 0.0)

    def set(self, name: int, value: float) -> None:
        self.properties[name] = value


def decode_packet(data: bytes) -> np.ndarray:
    capture: Any = Capture()
    decode = read_packets(capture)
    assert decode is not None
    return decode(np.frombuffer(data, np.uint8)[None])


def drawn() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def test_a_jpeg_without_huffman_tables_is_decoded_by_those_of_the_standard() -> None:
    """Motion JPEG may leave them out (ITU-T T.81, annex K.3; AVI's MJPG)."""
    data = jpeg(drawn())  # not optimised: its tables are those of the standard
    short = data
    while (at := short.find(b"\xff\xc4")) >= 0:
        short = short[:at] + short[at + 2 + int.from_bytes(short[at + 2 : at + 4], "big") :]
    assert len(short) < len(data) - 400
    assert np.array_equal(decode_packet(short), decode_image(np.frombuffer(data, np.uint8)))


def test_a_field_of_interlaced_video_is_not_taken_for_a_frame() -> None:
    """Capture cards write both fields as two JPEG images, into one packet or two: each has half of the rows."""
    top, bottom = jpeg(drawn()[::2]), jpeg(drawn()[1::2])
    for packet in (top, top + bottom):
        with pytest.raises(UnreadableImageError, match="24 of 48 rows: one field of interlaced video"):
            decode_packet(packet)
    assert decode_packet(jpeg(drawn()[:32, :32])).shape == (32, 32, 3), "the camera was set to another size"


def test_images_are_rotated_as_the_container_says(tmp_path: Path) -> None:
    path = tmp_path / "clip.mov"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    if not writer.isOpened():
        pytest.skip("this build of OpenCV does not write MJPG in .mov")
    for _ in range(3):
        writer.write(cv2.resize(drawn()[:4, :4], (WIDTH, HEIGHT)))
    writer.release()
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + TKHD_MATRIX
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in QUARTER_TURN)
    path.write_bytes(data)

    def first(*, packets: bool) -> np.ndarray:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        decode = read_packets(capture) if packets else None
        success, read = capture.read()
        assert success
        return decode(read) if decode else cv2.cvtColor(read, cv2.COLOR_BGR2RGB)

    rotated = first(packets=True)
    assert rotated.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(rotated.astype(float) - first(packets=False)).mean() < 5  # turned the other way: over 50
