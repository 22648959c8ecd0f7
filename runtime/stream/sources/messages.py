"""What the process that holds a camera and its parent send each other; see `grabber`. Imports no cv2."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msc_edge.runtime.stream.sources.address import Address

StatusKind = Literal["open", "broken", "damaged"]
ColourOrder = Literal["RGB", "BGR"]
OnStatus = Callable[[StatusKind, str], None]


class ConnectionBrokenError(Exception):
    """A connection to a camera ended, or could not be made; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """What to open, and how."""

    address: Address
    open_timeout: float
    """Seconds."""
    read_timeout: float
    """Seconds."""
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    ca_file: Path | None = None
    """HTTPS and RTSPS: certificate authority of the camera, instead of those of the system."""
    insecure: bool = False
    """HTTPS and RTSPS: accept any certificate."""


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """The source is open (with its settings), broken (with the reason), or sent a frame that cannot be decoded."""

    kind: StatusKind
    message: str
    connection: int
    """Number of the connection in this process. Frames of a broken connection may still be on their way."""


@dataclass(frozen=True, slots=True)
class AllocateMemory:
    """Request for shared memory of at least this size; see `FrameMemory`."""

    bytes: int


@dataclass(frozen=True, slots=True)
class GrabbedFrame:
    """A frame is in the shared memory: uint8 (height, width, 3), RGB."""

    index: int
    """Number of the frame in this process, damaged frames included."""
    connection: int
    captured: float
    """`time.monotonic()`, which all processes of a machine share."""
    time: float
    """`time.time()`."""
    height: int
    width: int
    damaged: int
    """Number of damaged frames in this process until then."""


NEXT_FRAME = b"next"  # request for a frame that was not sent before
