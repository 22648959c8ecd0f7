"""`--show`: a window with the frame, its score and its verdict, in a process of its own.

The libraries behind OpenCV's windows end the process when a display cannot be reached; that must not end the stream.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

import cv2
import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.runtime.stream.frame import Decision

_log = logging.getLogger("msc_edge.stream")
_WIDEST, _HIGHEST = 1280, 720
_COLOURS: dict[Verdict, tuple[int, int, int]] = {  # RGB
    "normal": (67, 160, 71),
    "warn": (251, 140, 0),
    "reject": (229, 57, 53),
}
_READY = b"ready"


class Window:
    """Shows decisions as fast as it can draw them, and lets the others pass. Safe to use from several threads."""

    def __init__(self, title: str) -> None:
        """Open it; without a display it says so in the log, and does nothing."""
        self._theirs: Connection | None = None
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            _log.warning("--show: there is no display here (DISPLAY is not set); going on without a window")
            return
        context = multiprocessing.get_context("spawn")
        self._theirs, ours = context.Pipe()
        self._process = context.Process(target=_show, args=(ours, title), daemon=True, name="msc-edge window")
        self._process.start()
        ours.close()
        self._lock = context.Lock()

    def show(self, decision: Decision) -> None:
        """Show a decision, if the window is ready for one."""
        if self._theirs is None or decision.frame.image is None or not self._lock.acquire(block=False):
            return
        try:
            if self._theirs is not None and self._theirs.poll(0):
                self._theirs.recv_bytes()
                self._theirs.send(drawn(decision))
        except (OSError, EOFError):
            self._theirs = None
            _log.warning("--show: the window was closed, or the display cannot be used; going on without it")
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close it."""
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None
            self._process.join(0.5)
            self._process.kill()


def drawn(decision: Decision) -> np.ndarray:
    """The frame, made small enough for a screen, with its verdict drawn: uint8 (h, w, 3), RGB."""
    image, result = decision.frame.image, decision.result
    assert image is not None, "a frame that was read has an image"
    height, width = image.shape[:2]
    scale = min(_WIDEST / width, _HIGHEST / height, 1.0)
    # Narrow pictures are enlarged, so that the words fit.
    if width * scale < 320:
        scale = 320 / width
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    bar = np.full((44, size[0], 3), 24, np.uint8)
    if result is None:
        words, colour = decision.frame.error or "unreadable", (180, 180, 180)
    else:
        words, colour = f"{result.verdict}  {result.score:.4f}", _COLOURS[result.verdict]
    cv2.putText(bar, words, (12, 29), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, 2, cv2.LINE_AA)
    name = decision.frame.source
    (wide, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    (used, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2)
    if used + wide + 36 < size[0]:
        at = (size[0] - wide - 12, 28)
        cv2.putText(bar, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (170, 170, 170), 1, cv2.LINE_AA)
    cv2.rectangle(picture, (0, 0), (size[0] - 1, size[1] - 1), colour, 4)
    return np.vstack([picture, bar])


def _show(connection: Connection, title: str) -> None:
    """The whole life of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent ends us when it is through
    with contextlib.suppress(OSError, EOFError, cv2.error):
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE)
        connection.send_bytes(_READY)
        while cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1:
            if connection.poll(0.02):
                cv2.imshow(title, cv2.cvtColor(connection.recv(), cv2.COLOR_RGB2BGR))
                connection.send_bytes(_READY)
            if cv2.waitKey(1) & 0xFF in (27, ord("q")):
                break
    os._exit(0)
