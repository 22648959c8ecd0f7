"""A copy of one frame for another thread: a new kit must score it before the kit counts."""

import threading

import numpy as np

from msc_edge.runtime.stream.frame import Frame


class FrameRequest:
    """Copies one frame when another thread asks for it: a frame is valid only while it is processed."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._copied = threading.Event()
        self._image: np.ndarray | None = None

    def offer(self, frame: Frame) -> None:
        """Copy this frame if one is wanted."""
        if frame.image is not None and self._wanted.is_set():
            self._wanted.clear()
            self._image = frame.image.copy()
            self._copied.set()

    def take(self, timeout: float) -> np.ndarray | None:
        """The next frame that is offered; None when there is none in `timeout` seconds. From one thread at a time."""
        self._copied.clear()
        self._wanted.set()
        taken = self._copied.wait(timeout)
        self._wanted.clear()
        image, self._image = self._image, None
        return image if taken else None
