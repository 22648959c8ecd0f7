"""What the stream hands to the process of its page, and what that asks for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from msc_edge.anomaly_map import AnomalousRegion, AnomalyMap
from msc_edge.kit.manifest import FileEntry
from msc_edge.runtime.results.result import NearestImage
from msc_edge.runtime.stream.line.values import Outcome, State
from msc_edge.runtime.web.settings import WebSettings


@dataclass(frozen=True, slots=True)
class PageSettings:
    """What does not change while the page runs."""

    station: str
    web: WebSettings
    users: Path | None
    """The users who may log in; None: nobody needs to."""
    session_hours: float
    is_local: bool
    """Whether only this PC reaches the page."""
    folder: Path
    """Of the state, absolute: records, kept images and the audit log are there."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A decision as a point of the chart."""

    number: int
    """Number of the decision in the stream, from 1."""
    source: str
    time: float
    """Of capture, in seconds since 1970."""
    outcome: Outcome
    score: float | None
    """None where the frame was not scored."""
    limit: float | None


@dataclass(frozen=True, slots=True)
class KitFacts:
    """What the kit of a finding says about it."""

    decided_by: Literal["image", "patch"]
    """Which of the two scores makes the score."""
    is_least_p_value: bool
    """Whether all calibration images have a lower score."""
    calibration_images: int
    independent: int
    """As how many independent images these count."""
    path: Path
    """Of the kit."""
    thumbnail: FileEntry | None
    """Of the nearest normal image; None for a kit without thumbnails."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning or a reject, as the gallery keeps it."""

    id: str
    """Of the decision, as in rows and events."""
    source: str
    frame: int
    time: float
    """Of capture, in seconds since 1970."""
    verdict: Outcome
    score: float
    limit: float
    image_score: float
    patch_score: float | None
    p_value: float | None
    regions: tuple[AnomalousRegion, ...]
    nearest: tuple[NearestImage, ...]
    model: str
    kit: str
    """SHA-256 of the manifest."""
    height: int
    width: int
    """Of the frame that was scored, in pixels: regions refer to it."""
    image: str | None
    """Where the frame is saved, absolute; None where it is not."""
    path: str | None
    """Of the image file that was scored."""
    facts: KitFacts | None
    """None where the kit is not active any more."""


@dataclass(frozen=True, slots=True)
class FrameImage:
    """A frame to display."""

    scored: Scored
    image: np.ndarray
    """uint8 (height, width, 3), RGB; scaled down."""
    grid_map: AnomalyMap | None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A source."""

    name: str
    state: State
    reason: str
    """Why no frames are scored; empty while they are."""
    old_after: float | None
    """Seconds after which its last frame is not current any more; None: not live, or it waits for triggers."""
    drift: bool
    """Whether a drift was reported for the kit and limits in use."""
    kit: str
    """SHA-256 of its kit."""
    limit: float
    """The reject limit."""
    warn: float
    """The warn limit."""


@dataclass(frozen=True, slots=True)
class KitStatus:
    """An active kit."""

    sha256: str
    name: str
    model: str
    path: Path
    """Absolute."""
    learned: int
    """Images that this station has learned for it."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """A channel of events, or the files of rows and images."""

    name: str
    waiting: int
    """Events or rows that wait."""
    set_aside: int
    failure: str
    """Empty while it works."""


@dataclass(frozen=True, slots=True)
class StationStatus:
    """The stream as a whole."""

    station: str
    time: float
    """Seconds since 1970."""
    sources: tuple[SourceStatus, ...]
    kits: tuple[KitStatus, ...]
    sinks: tuple[SinkStatus, ...]
    not_ready: tuple[str, ...]
    """The reasons why the stream is not ready; none when it is."""


Counts = dict[tuple[str, int], dict[Outcome, int]]
"""Number of frames by source and minute (seconds since 1970, divided by 60), and by outcome."""


@dataclass(frozen=True, slots=True)
class Recent:
    """What has happened since the last snapshot."""

    scored: tuple[Scored, ...] = ()
    counts: Counts | None = None
    findings: tuple[Finding, ...] = ()
    frames: tuple[FrameImage, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer to a `Request`."""

    status: StationStatus
    recent: Recent
    metrics: bytes | None = None
    is_last: bool = False
    """Whether the stream ends."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the page wants to know."""

    metrics: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """The page has stored the last snapshot."""
