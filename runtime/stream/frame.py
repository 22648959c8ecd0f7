"""Frames, as sources yield them, and decisions, as workers make them."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.errors import SourceError
from msc_edge.preprocessing import Region
from msc_edge.runtime.results.result import Result


@dataclass(frozen=True, slots=True)
class ProcessedFile:
    """An image file of a watched folder, with the size and date that it had when it was read."""

    folder: str
    path: bytes
    """Relative to the folder, in the encoding of the file system."""
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""
    changed: int = 0
    """Time of the last change of the file or its entry (ctime), in nanoseconds since 1970."""
    digest: bytes = b""
    """BLAKE2b of the content; empty where it could not be read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image from a source. A file that cannot be decoded is a frame with an `error` and without an image."""

    source: str
    """Name of the source. Not its address, which may contain a password."""
    index: int
    """Number of the frame in its source, from 0. Dropped and skipped frames count."""
    time: datetime
    """Wall clock at capture, with UTC offset."""
    captured: float
    """`time.monotonic()` at capture."""
    image: np.ndarray | None
    """uint8 (height, width, 3), RGB. Valid until the next frame is requested; copy it to keep it."""
    dropped: int = 0
    """Frames of a live source since the previous one that were lost: too many to score, or damaged."""
    skipped: int = 0
    """Frames of a live source since the previous one that were left out on purpose, because of `max_fps`."""
    position: float | None = None
    """Seconds from the start of a video file; None where the container has no time for this frame."""
    path: str | None = None
    """Path of an image file."""
    error: str | None = None
    """Why the file cannot be decoded (then `image` is None) or why the frame cannot be scored."""
    id: str | None = None
    """Id of an image file. It is the same after a restart if the file is unchanged."""
    file: ProcessedFile | None = None
    """To be recorded together with the decision, so that this file is never scored again."""
    trigger: str | None = None
    """Id of the trigger that asked for this frame."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Duration of each stage of one decision, in milliseconds."""

    age: float
    """From capture to the start of scoring."""
    infer: float
    """Preprocessing and network."""
    search: float
    """Nearest normal images, p-value and verdict."""
    total: float
    """From capture to the decision."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of one frame."""

    id: str
    """Unique. An unchanged image file has the same id after a restart."""
    frame: Frame
    result: Result | None
    """None for a frame that was not scored."""
    stages: Stages | None
    """None for a frame that was not scored."""

    @property
    def verdict(self) -> Verdict | None:
        """None for a frame that was not scored."""
        return self.result.verdict if self.result else None


def cut(image: np.ndarray, roi: Region) -> np.ndarray:
    """The part of a frame (height, width, 3) that is used. SourceError where it does not fit into the frame."""
    height, width = image.shape[:2]
    if not roi.fits(height=height, width=width):
        raise SourceError(
            f"the frame has {width}x{height} pixels, and the roi of the source does not fit into it; correct `roi`"
        )
    return np.ascontiguousarray(image[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width])
