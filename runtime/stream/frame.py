"""What a source yields, and what becomes of it."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.runtime.results.result import Result


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a source, as it was captured; or a file that could not be read, which has an `error`."""

    source: str
    """Name of the source; never its address, which may hold a password."""
    index: int
    """Counts the frames that the source gave, dropped ones too, from 0."""
    time: datetime
    """Wall clock when it was captured or read, with UTC offset."""
    captured: float
    """`time.monotonic()` at that moment."""
    image: np.ndarray | None
    """uint8 (height, width, 3), RGB. Valid until the next frame is asked for: copy it to keep it."""
    dropped: int = 0
    """Frames that the source gave since the frame before, and that nobody scored: live sources are freshest-first."""
    position: float | None = None
    """Seconds from the beginning of a video file, as its container has it; None where it has none for this frame."""
    path: str | None = None
    """Of an image file."""
    error: str | None = None
    """Why it could not be read, and then `image` is None, or could not be scored."""
    id: str | None = None
    """Of a file: the same one after a restart, as long as the file is unchanged."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Where the time of one decision went, in milliseconds."""

    age: float
    """From capture until scoring began."""
    infer: float
    """Preprocessing and network."""
    search: float
    """Nearest normals, p-value, verdict."""
    total: float
    """From capture until the decision stood."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One frame, decided."""

    id: str
    """Stable: the same file, unchanged, gets the same one after a restart. Unique for each frame of a live source."""
    frame: Frame
    result: Result | None
    """None for a file that could not be read."""
    stages: Stages | None

    @property
    def verdict(self) -> Verdict | None:
        """None for a file that could not be read."""
        return self.result.verdict if self.result else None
