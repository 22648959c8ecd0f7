"""Videos that are a series of JPEG or PNG images, opened by FFmpeg.

FFmpeg shows a damaged image with pixels of the image before. Here each is decoded by itself, as an image file is.
"""

from typing import Final

import cv2
import numpy as np

from msc_edge.images import decode_image

_CODECS: Final = ("MJPG", "MPNG", "JPEG", "PNG")


def codec_of(capture: cv2.VideoCapture) -> str:
    """The codec of a video in four letters, for example H264 or MJPG."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return "".join(c if c.isprintable() else "?" for c in code.to_bytes(4, "little").decode("latin-1")).strip()


def holds_images(capture: cv2.VideoCapture) -> bool:
    """Whether each frame of the video is a JPEG or PNG image."""
    return codec_of(capture).upper() in _CODECS


def read_packets(capture: cv2.VideoCapture) -> None:
    """Make `capture.read` return the packets of the file, uint8 (1, n), instead of frames. Before the first frame."""
    capture.set(cv2.CAP_PROP_FORMAT, -1)


def decode_packet(packet: np.ndarray) -> np.ndarray:
    """The frame, uint8 (height, width, 3), RGB. UnreadableImageError with the reason where it is damaged."""
    return decode_image(packet.ravel())
