"""The loop of `msc-edge capture`: frames of a source become image files."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from msc_edge.preprocessing import Region
from msc_edge.runtime.stream.events import EventKind
from msc_edge.runtime.stream.frame import Frame, cut
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.interface import Source
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.training_images.checks import EXPLANATIONS, REFUSALS, FrameChecks
from msc_edge.runtime.stream.training_images.focus import Sharpness
from msc_edge.runtime.stream.training_images.image_folder import ImageFolder
from msc_edge.runtime.stream.training_images.timing import Timing
from msc_edge.text import many

_WARNINGS: tuple[EventKind, ...] = ("source_lost", "source_frozen", "folder_incomplete")
_UNREADABLE = "unreadable"


@dataclass
class Capture:
    """Captures images until there are enough, the source ends, or it is stopped."""

    source: Source
    folder: ImageFolder
    timing: Timing
    checks: FrameChecks
    wanted: int
    """Number of images in the folder, with those of earlier runs."""
    state: State
    """Remembers the files of a folder that were examined."""
    roi: Region | None = None
    """The part of each frame to keep."""
    report_each: bool = False
    """Log what happens to each examined frame."""
    earlier: int = field(init=False)
    """Number of images of earlier runs in the folder."""
    skipped: Counter[str] = field(default_factory=Counter, init=False)
    """Number of examined frames that were not kept, by reason."""
    has_ended: bool = field(default=False, init=False)
    """Whether the source, a video file, was read to its end."""
    _stopped: bool = field(default=False, init=False)
    _kept: dict[Path, Sharpness] = field(default_factory=dict, init=False)
    """Of the images of this run."""

    def __post_init__(self) -> None:
        self.earlier = len(self.folder.paths)

    def run(self, show: Callable[[str], None] = lambda _: None) -> None:
        """Capture. `show` takes the running count. OutputError when an image cannot be written,
        SourceError when `roi` does not fit into the frames.
        """
        if self.is_complete:
            return
        frames = self.source.frames(self._log_event)
        try:
            for frame in frames:
                if frame is not None:
                    self._take(frame)
                if self.is_complete:
                    self._remove_blurred()
                show(self.status())
                if self.is_complete or self.timing.has_ended or self._stopped:
                    return
        finally:
            frames.close()
            self._remove_blurred()

    def stop(self) -> None:
        """Make `run` end soon. Safe to call from a signal handler, which must take no lock: `source.close` does."""
        self._stopped = True

    @property
    def is_complete(self) -> bool:
        """Whether the folder has as many images as wanted."""
        return len(self.folder.paths) >= self.wanted

    def status(self) -> str:
        """The running count, and why there are no frames."""
        parts = [self.summary()]
        if outage := self.source.outage:
            parts = [f"{parts[0]}; {self.source.name}: NO FRAMES, {outage.short()}", outage.reason]
        return "; ".join(part for part in parts if part)

    def summary(self) -> str:
        """The count alone: `87 of 200 images, 40 of them from earlier runs; skipped: 412 similar, 9 blurred`."""
        counts = [f"{self.skipped[reason]} {reason}" for reason in (*REFUSALS, _UNREADABLE) if self.skipped[reason]]
        skipped = f"; skipped: {', '.join(counts)}" if counts else ""
        earlier = f", {self.earlier} of them from earlier runs" if self.earlier else ""
        return f"{len(self.folder.paths)} of {many(self.wanted, 'image')}{earlier}{skipped}"

    def _take(self, frame: Frame) -> None:
        moment = self._moment(frame)
        if frame.image is not None and self.roi is not None:
            frame = replace(frame, image=cut(frame.image, self.roi))
        if frame.image is not None:
            self.checks.observe(frame.image, moment)
        if self.timing.is_due(frame, moment):
            self._examine(frame)
        if frame.file is not None:
            self.state.record([], file=frame.file)
        self.source.scored()

    def _moment(self, frame: Frame) -> float | None:
        """The time of a frame in its source, in seconds; None for files, which do not follow each other closely."""
        return frame.captured if self.source.is_live else frame.position

    def _examine(self, frame: Frame) -> None:
        if frame.image is None:
            self._skip(_UNREADABLE, f"{frame.path or f'frame {frame.index}'}: {frame.error}")
        elif refusal := self.checks.refusal(frame.image):
            self._skip(refusal, EXPLANATIONS[refusal])
        else:
            path = self.folder.save(frame.image, frame.time)
            self._kept[path] = self.checks.last
            if self.report_each:
                LOG.info("kept as %s", path.name)

    def _remove_blurred(self) -> None:
        """Remove what was kept before the camera was in focus: only later frames show how sharp it can be."""
        for path in [path for path, measured in self._kept.items() if self.checks.is_blurred(measured)]:
            self.folder.remove(path)
            del self._kept[path]
            self.skipped["blurred"] += 1
            LOG.info("%s was removed: later frames are sharper", path.name)

    def _skip(self, reason: str, explanation: str) -> None:
        self.skipped[reason] += 1
        if self.report_each or reason == _UNREADABLE:
            LOG.info("not kept (%s): %s", reason, explanation)
        elif self.skipped[reason] == 1:
            LOG.info("not kept (%s): %s. Further such frames are only counted", reason, explanation)

    def _log_event(self, kind: EventKind, message: str, seconds: float | None) -> None:  # noqa: ARG002
        if kind == "source_ended":  # the summary follows
            self.has_ended = True
        else:
            log = LOG.warning if kind in _WARNINGS else LOG.info
            log("%s: %s", self.source.name, message)
