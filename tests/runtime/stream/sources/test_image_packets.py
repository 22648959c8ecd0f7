import cv2
import numpy as np

from msc_edge.images import decode_image
from msc_edge.runtime.stream.sources.image_packets import decode_packet


def test_a_jpeg_without_huffman_tables_is_decoded_by_those_of_the_standard() -> None:
    """Motion JPEG may leave them out (ITU-T T.81, annex K.3; AVI's MJPG)."""
    drawn = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", drawn)[1].tobytes()  # not optimised: its tables are those of the standard
    short = data
    while (at := short.find(b"\xff\xc4")) >= 0:
        short = short[:at] + short[at + 2 + int.from_bytes(short[at + 2 : at + 4], "big") :]
    assert len(short) < len(data) - 400
    expected = decode_image(np.frombuffer(data, np.uint8))
    assert np.array_equal(decode_packet(np.frombuffer(short, np.uint8)[None]), expected)
