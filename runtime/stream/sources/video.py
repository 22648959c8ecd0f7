"""A video file: every frame, in order, none dropped, with the time that its container has for it."""

import threading
import time
from collections.abc import Generator
from pathlib import Path

import cv2

from msc_edge.errors import SourceError
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.interface import OnEvent


class VideoSource:
    """The frames of a file, once through."""

    is_live = False

    def __init__(self, name: str, path: Path) -> None:
        """Open the file. SourceError when it is not a video that can be decoded."""
        self.name = name
        self._path = path
        self._closed = threading.Event()
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(f"{path}: not a video that can be decoded; check the file, or convert it to H.264")

    def frames(self, tell: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source."""
        exclusive_run_folder = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        count, last = 0, -1.0
        try:
            while not self._closed.is_set():
                captured, moment = time.monotonic(), now()
                whole, image = self._capture.read()
                if not whole:
                    break
                position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                # Some frames have no time in their container; FFmpeg then says 0.
                known = position > last
                last = position if known else last
                if count == 0:
                    tell("source_up", "frames are read", None)
                yield Frame(
                    source=self.name,
                    index=count,
                    time=moment,
                    captured=captured,
                    image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
                    position=position if known else None,
                )
                count += 1
            else:
                return
        finally:
            self._capture.release()
        cut = f", of the {exclusive_run_folder} that it claims to have" if count < exclusive_run_folder - 1 else ""
        if cut:
            LOG.warning("%s: %s: %d frames could be read%s", self.name, self._path, count, cut)
        tell("source_ended", f"its {count} frames were scored{cut}", None)

    def done(self, decision: Decision) -> None:
        """A file that is given is scored from its beginning, each time."""

    def close(self) -> None:
        """See Source."""
        self._closed.set()
