"""`--show`: a window with the frames, their scores and verdicts, in its own process. Its tiles: see `tiles`.

The libraries behind OpenCV's windows end the process when the display cannot be reached. The stream must go on.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import cv2
import numpy as np

from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.outage import Outage
from msc_edge.runtime.stream.tiles import arranged, cell_size, drawn, grey, not_inspected, without_image

_HELD = 2.0  # seconds that a rejected frame, or one that was not inspected, stays, whatever comes after it
_STALLED = 10.0  # seconds without a sign of a source, or of the stream, after which an image counts as old
_TICK = 0.5  # seconds after which the durations are drawn again
_READY = b"ready"


@dataclass
class _Tile:
    """What is known of a source."""

    image: np.ndarray | None = None
    """Of the last decision that was drawn."""
    last: np.ndarray | None = None
    """Of the last one that had a frame."""
    outage: Outage | None = None
    heard: float = 0.0
    """`time.monotonic()` of the last sign of the source."""
    held_until: float = 0.0
    is_waiting: bool = False
    """Whether the image was not displayed yet. Others that come until then are not drawn."""


class Window:
    """Displays decisions as fast as it can draw them, and skips the rest. Safe to use from several threads."""

    def __init__(self, title: str, sources: Sequence[str]) -> None:
        """Open the window, with a tile for each source. Without a display it logs a warning and does nothing."""
        now = time.monotonic()
        self._tiles = {name: _Tile(outage=Outage("connecting"), heard=now) for name in sources}
        self._width, self._height = cell_size(len(sources))
        self._changed = threading.Condition()
        self._closed = False
        self._works = False
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
        self._works = True
        # A display that hangs blocks this thread only.
        threading.Thread(target=self._send_images, name="msc-edge window", daemon=True).start()

    def show(self, decision: Decision) -> None:
        """Display a decision, if the window is ready for one. A rejected frame is always displayed, for two seconds.

        So is one without an image, unless a rejected one is displayed: nothing may look as if its part was inspected.
        """
        if not self._works:
            return
        tile, now = self._tiles[decision.frame.source], time.monotonic()
        rejected, missing = decision.verdict == "reject", decision.frame.image is None
        with self._changed:
            tile.outage, tile.heard = None, now
            if not rejected and (now < tile.held_until or (tile.is_waiting and not missing)):
                return
        # One thread for each source: no other one draws this tile.
        size = {"width": self._width, "height": self._height}
        image = not_inspected(decision, tile.last, **size) if missing else drawn(decision, **size)
        with self._changed:
            tile.image, tile.is_waiting = image, True
            tile.last = tile.last if missing else image
            tile.held_until = now + _HELD if rejected or missing else 0.0
            self._changed.notify()

    def update(self, source: str, outage: Outage | None) -> None:
        """Note that a source is alive, or why it has no frames."""
        tile = self._tiles[source]
        with self._changed:
            tile.heard = time.monotonic()
            if outage != tile.outage:
                tile.outage = outage
                self._changed.notify()

    def _send_images(self) -> None:
        try:
            while True:
                self._connection.recv_bytes()
                with self._changed:
                    if not any(tile.is_waiting for tile in self._tiles.values()):
                        self._changed.wait(_TICK)
                    shown = [(name, replace(tile, outage=_outage(tile))) for name, tile in self._tiles.items()]
                    for tile in self._tiles.values():
                        tile.is_waiting = False
                if self._closed:
                    return
                self._connection.send(arranged([self._drawn(*each) for each in shown]))
        except (OSError, EOFError, TypeError):  # TypeError: the connection was closed during recv
            self._works = False
            if not self._closed:
                LOG.warning("--show: the window was closed, or the display cannot be used; continuing without it")

    def _drawn(self, name: str, tile: _Tile) -> np.ndarray:
        if tile.outage is None and tile.image is not None:
            return tile.image
        outage = tile.outage or Outage("connecting")
        return without_image(name, outage, tile.last, width=self._width, height=self._height)

    def close(self) -> None:
        """Close the window."""
        self._closed, self._works = True, False
        if self._process is not None:
            self._process.kill()
            self._process.join(1)


def _outage(tile: _Tile) -> Outage | None:
    silent = time.monotonic() - tile.heard
    if tile.outage or silent < _STALLED:
        return tile.outage
    return replace(Outage.since_monotonic(tile.heard), state="stalled", reason="its frames are not scored")


def _run_window(connection: Connection, title: str) -> None:
    """Main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too; the parent ends it afterwards
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # messages of Qt about displays and fonts
    image, received = None, time.monotonic()
    with contextlib.suppress(OSError, EOFError, cv2.error):
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE)
        connection.send_bytes(_READY)
        while cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1:
            if connection.poll(0.02):
                image, received = connection.recv(), time.monotonic()
                cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                connection.send_bytes(_READY)
            elif image is not None and time.monotonic() - received > _STALLED:  # the stream hangs
                cv2.imshow(title, grey(image))
                image = None
            if cv2.waitKey(1) & 0xFF in (27, ord("q")):
                break
    os._exit(0)
