"""Videos that are a series of JPEG or PNG images, opened by FFmpeg.

FFmpeg shows a damaged image with pixels of the image before. Here each is decoded by itself, as an image file is.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.images import decode_image

_CODECS: Final = ("MJPG", "MPNG", "JPEG", "PNG")
_ROTATIONS: Final = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_FIELD = 0.75  # of the height of the video; an image with fewer rows is one field of interlaced video, as in FFmpeg

DecodePacket = Callable[[np.ndarray], np.ndarray]
"""The frame in a packet, uint8 (height, width, 3), RGB. UnreadableImageError with the reason where it is damaged."""


def codec_of(capture: cv2.VideoCapture) -> str:
    """The codec of a video in four letters, for example H264 or MJPG."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return "".join(c if c.isprintable() else "?" for c in code.to_bytes(4, "little").decode("latin-1")).strip()


def read_packets(capture: cv2.VideoCapture) -> DecodePacket | None:
    """Make `capture.read` return packets, uint8 (1, n), instead of frames. Call it before the first frame.

    Returns how to decode them; None, and nothing changes, for a video whose frames are not JPEG or PNG images.
    """
    if codec_of(capture).upper() not in _CODECS:
        return None
    angle = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
    size = capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)
    height, width = size if angle % 180 == 0 else size[::-1]
    capture.set(cv2.CAP_PROP_FORMAT, -1)

    def decode(packet: np.ndarray) -> np.ndarray:
        image = decode_image(packet.ravel())
        if image.shape[1] == width and image.shape[0] < _FIELD * height:
            raise UnreadableImageError(
                f"it has {image.shape[0]} of {height:.0f} rows: one field of interlaced video, which is not supported; "
                "convert the video, or set the camera, to progressive frames"
            )
        return cv2.rotate(image, _ROTATIONS[angle]) if angle in _ROTATIONS else image

    return decode
