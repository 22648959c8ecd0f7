"""`--show`: a window with the frame, its score and its verdict, in its own process.

The libraries behind OpenCV's windows end the process when the display cannot be reached. The stream must go on.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

import cv2
import numpy as np

from msc_edge.drawing import VERDICT_COLOURS, Colour, draw_text, fit, printable, text_width
from msc_edge.overlay import overlay
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.logs import LOG

_MAX_WIDTH, _MAX_HEIGHT, _MIN_WIDTH = 1280, 720, 320
_UNSCORED: Colour = (180, 180, 180)
_NAME: Colour = (170, 170, 170)
_READY = b"ready"


class Window:
    """Displays decisions as fast as it can draw them, and skips the rest. Safe to use from several threads."""

    def __init__(self, title: str) -> None:
        """Open the window. Without a display it logs a warning and does nothing."""
        self._ready = threading.Event()  # the window can take another image
        self._images: queue.Queue[np.ndarray | None] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._process = None
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            LOG.warning("--show: no display (DISPLAY is not set); continuing without a window")
            return
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(
            target=_run_window, args=(child_connection, title), daemon=True, name="msc-edge window"
        )
        self._process.start()
        child_connection.close()
        # A display that hangs blocks this thread only.
        threading.Thread(target=self._send_images, name="msc-edge window", daemon=True).start()

    def show(self, decision: Decision) -> None:
        """Display a decision, if the window is ready for one."""
        if decision.frame.image is None:
            return
        with self._lock:
            if not self._ready.is_set():
                return
            self._ready.clear()
        self._images.put(drawn(decision))

    def _send_images(self) -> None:
        try:
            while True:
                self._connection.recv_bytes()
                self._ready.set()
                if (image := self._images.get()) is None:
                    return
                self._connection.send(image)
        except (OSError, EOFError, TypeError):  # TypeError: the connection was closed during recv
            self._ready.clear()
            if not self._closed:
                LOG.warning("--show: the window was closed, or the display cannot be used; continuing without it")

    def close(self) -> None:
        """Close the window."""
        self._closed = True
        self._ready.clear()
        self._images.put(None)
        if self._process is not None:
            self._process.kill()
            self._process.join(1)


def drawn(decision: Decision) -> np.ndarray:
    """The frame in a size that fits on a screen, with its verdict: uint8 (h, w, 3), RGB.

    A frame that is not normal is shown with its heatmap.
    """
    image, result = decision.frame.image, decision.result
    assert image is not None, "a frame that was read has an image"
    if result is None:
        text, colour = decision.frame.error or "unreadable", _UNSCORED
    else:
        text, colour = f"{result.verdict}  {result.score:.4f}", VERDICT_COLOURS[result.verdict]
    if result and result.grid_map is not None and result.verdict != "normal":
        image = overlay(fit(image, width=_MAX_WIDTH, height=_MAX_HEIGHT), result.grid_map)
    if image.shape[1] < _MIN_WIDTH:
        fitted = fit(image, width=_MIN_WIDTH, height=_MAX_HEIGHT, enlarge="pixels")
    else:
        fitted = fit(image, width=_MAX_WIDTH, height=_MAX_HEIGHT)
    height, width = fitted.shape[:2]
    cv2.rectangle(fitted, (0, 0), (width - 1, height - 1), colour, 4)
    canvas = np.full((height + 44, max(width, _MIN_WIDTH), 3), 24, np.uint8)
    left = (canvas.shape[1] - width) // 2
    canvas[:height, left : left + width] = fitted
    _write(canvas[height:], text, decision.frame.source, colour)
    return canvas


def _write(bar: np.ndarray, text: str, name: str, colour: Colour) -> None:
    available = bar.shape[1] - 24
    text = printable(text)
    while (used := text_width(text, scale=0.8, thickness=2)) > available:
        text = f"{text[:-4]}..."
    draw_text(bar, text, left=12, baseline=29, scale=0.8, colour=colour, thickness=2)
    name_width = text_width(name, scale=0.5)
    if used + name_width + 16 < available:
        draw_text(bar, name, left=bar.shape[1] - name_width - 12, baseline=28, scale=0.5, colour=_NAME)


def _run_window(connection: Connection, title: str) -> None:
    """Main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too; the parent ends it afterwards
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # messages of Qt about displays and fonts
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
