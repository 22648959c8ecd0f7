"""Opens a camera and reads its frames: images by HTTP by `mjpeg`, all others by OpenCV. Runs in the grabber process.

Import this after the environment variables of OpenCV were set; see `grabber`.
"""

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, urlsplit

import cv2
import numpy as np

from msc_edge.errors import UnreadableImageError
from msc_edge.runtime.stream.sources.address import DEFAULT_PORTS, Address, camera_number
from msc_edge.runtime.stream.sources.image_packets import codec_of, read_packets
from msc_edge.runtime.stream.sources.messages import CaptureSettings, ColourOrder, ConnectionBrokenError, OnStatus
from msc_edge.runtime.stream.sources.rtsp_check import refusal, refuse_redirects


def capture_frames(
    settings: CaptureSettings, *, skip: Callable[[], None], on_status: OnStatus
) -> Iterator[tuple[np.ndarray, ColourOrder]]:
    """Yield the frames of one connection, uint8 (h, w, 3), with their colour order.

    `skip` counts a frame that cannot be decoded. Raises ConnectionBrokenError when the connection breaks; yields
    nothing when none could be made.
    """
    address = settings.address
    if address.given.lower().startswith(("http://", "https://")):
        # Only here: it imports `requests`, which takes 0.1 s and 10 MB.
        from msc_edge.runtime.stream.sources.mjpeg import open_image_stream  # noqa: PLC0415

        stream = open_image_stream(
            address.given, timeout=settings.read_timeout, ca_file=settings.ca_file, insecure=settings.insecure
        )
        if stream is not None:
            on_status("open", stream.description)
            for image in stream.frames(skip=skip, on_damaged=lambda message: on_status("damaged", message)):
                yield image, "RGB"
            return
    if address.is_rtsp and (address.uses_tls or urlsplit(address.given).username is not None):
        refuse_redirects(settings)  # neither the login nor the trust in a certificate follows them
    capture = _open(settings)
    try:
        if not capture.isOpened():
            return
        description = _actual_settings(capture, address)
        _refuse_wrong_colours(capture, address)
        decode = read_packets(capture) if address.kind == "network" else None
        success, data = capture.read()
        if not success:
            return
        on_status("open", description)
        while success:
            try:
                yield (decode(data), "RGB") if decode else (_with_channels(data), "BGR")
            except UnreadableImageError as error:
                skip()
                on_status("damaged", f"an image was skipped: {error}")
            success, data = capture.read()
    finally:
        capture.release()
    raise ConnectionBrokenError("the connection ended, or no frame came in time")


def _refuse_wrong_colours(capture: cv2.VideoCapture, address: Address) -> None:
    """FFmpeg takes uncompressed 4:2:0 video by RTSP, in which a line of colours belongs to two lines, for planes."""
    layout = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT))
    is_raw = int(capture.get(cv2.CAP_PROP_FOURCC)) == 0
    if address.is_rtsp and is_raw and layout == cv2.VideoWriter.fourcc(*"I420"):
        raise ConnectionBrokenError("its uncompressed 4:2:0 video cannot be decoded; set the camera to H.264 or JPEG")


def _with_channels(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 or image.shape[2] == 1 else image


def _open(settings: CaptureSettings) -> cv2.VideoCapture:
    if settings.address.kind == "webcam":
        return _open_webcam(settings)
    # OpenCV ignores the timeouts unless CAP_FFMPEG is named.
    return cv2.VideoCapture(
        settings.address.given,
        cv2.CAP_FFMPEG,
        [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * settings.open_timeout)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * settings.read_timeout)),
        ],
    )


def _open_webcam(settings: CaptureSettings) -> cv2.VideoCapture:
    number = camera_number(settings.address.given)
    interfaces = [cv2.CAP_DSHOW, cv2.CAP_MSMF] if os.name == "nt" else [cv2.CAP_V4L2, cv2.CAP_ANY]
    capture = cv2.VideoCapture()
    for interface in interfaces:
        if capture.open(number, interface):
            break
    if capture.isOpened():
        # MJPG before the size: common webcams send uncompressed 720p at 10 frames a second only.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
            (cv2.CAP_PROP_FPS, settings.fps),
        ):
            if value:
                capture.set(setting, value)
    return capture


def _actual_settings(capture: cv2.VideoCapture, address: Address) -> str:
    """Size, codec and rate as the camera reports them. They often differ from the requested ones."""
    fourcc = codec_of(capture)
    size = f"{capture.get(cv2.CAP_PROP_FRAME_WIDTH):.0f}x{capture.get(cv2.CAP_PROP_FRAME_HEIGHT):.0f}"
    rate = capture.get(cv2.CAP_PROP_FPS)
    interface = f" by {capture.getBackendName()}" if address.kind == "webcam" else ""
    return f"{size}, {fourcc}{f', {rate:.4g} frames a second' if 0 < rate < 1000 else ''}{interface}"


def diagnose(settings: CaptureSettings, *, seconds: float) -> str:
    """Why a source could not be opened, after `seconds`. OpenCV gives no reason; this checks if the host answers."""
    address = settings.address
    if address.kind == "webcam":
        return "the camera cannot be opened; check that it is plugged in, not in use, and readable (group video)"
    parts = urlsplit(address.shown.replace("***@", ""))
    try:
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
        if port is None or not parts.hostname:
            return "cannot be opened"
        with socket.create_connection((parts.hostname, port), timeout=2) as connection:
            if seconds >= min(settings.open_timeout, settings.read_timeout) - 0.1:
                return f"the host accepts the connection and does not answer in {seconds:.0f} s"
            checks_tls = address.uses_tls and not settings.insecure
            reason = _tls_failure(connection, parts, settings) if checks_tls else ""
            reason = reason or (refusal(settings) if address.is_rtsp else "")
            return reason or (
                "the host answers, but sends no video that can be decoded; check path, user, password and codec"
            )
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"


def _tls_failure(connection: socket.socket, address: SplitResult, settings: CaptureSettings) -> str:
    """Why the certificate of the host is not accepted, or no TLS is possible; "" if it is."""
    from msc_edge.runtime.stream.http_connections import tls_context  # noqa: PLC0415  (imports `requests`)

    try:
        context = tls_context(settings.ca_file, insecure=False)
    except OSError as error:
        return f"`ca_file` {settings.ca_file} cannot be used: {error.strerror or error}"
    try:
        context.wrap_socket(connection, server_hostname=address.hostname).close()
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted ({error.verify_message})"
    except OSError as error:
        return f"TLS fails ({getattr(error, 'reason', None) or error.strerror or error}); check scheme and port"
    return ""
