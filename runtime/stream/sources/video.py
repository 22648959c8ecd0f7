"""A video file: every frame, in order, with its time in the container."""

import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import cv2

from msc_edge.errors import SourceError, UnreadableImageError
from msc_edge.runtime.stream.events import now
from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.image_packets import read_packets
from msc_edge.runtime.stream.sources.interface import OnEvent

# FFmpeg prints lines of its own about damaged files. It reads this when OpenCV opens the first file.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class VideoSource:
    """Yields the frames of a file once."""

    is_live = False
    outage = None
    partial_outage = ""

    def __init__(self, name: str, path: Path) -> None:
        """Open the file. SourceError when it is not a video that can be decoded."""
        self.name = name
        self._path = path
        self._closed = threading.Event()
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(f"{path}: not a video that can be decoded; check the file, or convert it to H.264")

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        """See Source."""
        expected = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        decode = read_packets(self._capture)
        count, damaged, last = 0, 0, -1.0
        try:
            while not self._closed.is_set():
                captured, moment = time.monotonic(), now()
                success, data = self._capture.read()
                if not success:
                    break
                position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                # FFmpeg gives 0 for a frame without a time in the container.
                known = position > last
                last = position if known else last
                if count == 0:
                    on_event("source_up", "reading frames", None)
                image, error = None, None
                try:
                    image = decode(data) if decode else cv2.cvtColor(data, cv2.COLOR_BGR2RGB)
                except UnreadableImageError as reason:
                    error = str(reason)
                    damaged += 1
                    if damaged == 1:
                        LOG.warning("%s: frame %d of %s cannot be decoded: %s", self.name, count, self._path, error)
                yield Frame(
                    source=self.name,
                    index=count,
                    time=moment,
                    captured=captured,
                    image=image,
                    position=position if known else None,
                    error=error,
                )
                count += 1
            else:
                return
        finally:
            self._capture.release()
        missing = f"; the file declares {expected}" if count < expected - 1 else ""
        if missing:
            LOG.warning("%s: %s: only %d frames could be read%s", self.name, self._path, count, missing)
        unreadable = f"; {damaged} could not be decoded" if damaged else ""
        on_event("source_ended", f"{count - damaged} frames were scored{unreadable}{missing}", None)

    def scored(self) -> None:
        """See Source."""

    def close(self) -> None:
        """See Source."""
        self._closed.set()
