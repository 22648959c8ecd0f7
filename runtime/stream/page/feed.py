"""What has happened since the page last asked: kept by the stream, in bounded memory, at the cost of microseconds."""

import threading
from collections import deque
from pathlib import Path

import cv2
import numpy as np

from msc_edge.describe import is_least_p_value
from msc_edge.kit.layout import thumbnail_file
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.page.snapshot import Counts, Finding, FrameImage, KitFacts, Recent, Scored

_MOST_SCORED = 600  # points of charts; counts are kept apart
_MOST_FINDINGS = 2000  # while the process of the page is not there: some MB
_WIDTH, _HEIGHT = 1280, 960  # largest frame on the page, in pixels, for the only source; half for several

_COPY_INTERVAL = 0.25  # seconds between two frames of a source that are copied


class PageFeed:
    """The decisions of all sources for the page. Safe to use from several threads."""

    def __init__(self, sources: int) -> None:
        """`sources`: how many there are."""
        self._side = 1 if sources == 1 else 2
        self._lock = threading.Lock()
        self._number = 0
        self._scored: deque[Scored] = deque(maxlen=_MOST_SCORED)
        self._counts: Counts = {}
        self._findings: deque[Finding] = deque()
        self._dropped = 0
        self._frames: dict[str, FrameImage] = {}
        self._taken = Recent()

    def add(self, decision: Decision, saved: Path | None, detector: Detector) -> None:
        """Take a decision, after everything else has. `saved`: where its frame is saved. `detector`: of the source.

        A small copy of the frame is made four times a second at most. It replaces the one that waits, unless that is of
        a reject and this is not.
        """
        frame, result = decision.frame, decision.result
        moment, outcome = frame.time.timestamp(), decision.verdict or "not_scored"
        with self._lock:
            self._number += 1
            scored = Scored(
                self._number,
                frame.source,
                moment,
                outcome,
                result.score if result else None,
                result.limit if result else None,
            )
            self._scored.append(scored)
            counts = self._counts.setdefault((frame.source, int(moment // 60)), {})
            counts[outcome] = counts.get(outcome, 0) + 1
            if outcome in ("warn", "reject"):
                self._keep(_finding(decision, saved, detector))
            shown = self._frames.get(frame.source)
            wanted = shown is None or _replaces(scored, shown.scored)
        if wanted and frame.image is not None:
            small = halved(frame.image, width=_WIDTH // self._side, height=_HEIGHT // self._side)
            with self._lock:
                self._frames[frame.source] = FrameImage(scored, small, result.grid_map if result else None)

    def _keep(self, finding: Finding) -> None:
        self._findings.append(finding)
        while len(self._findings) > _MOST_FINDINGS:
            self._findings.popleft()
            self._dropped += 1

    def take(self) -> Recent:
        """What has happened since the last call. What that has taken counts as stored."""
        with self._lock:
            self._taken = Recent(
                tuple(self._scored), self._counts or None, tuple(self._findings), tuple(self._frames.values())
            )
            self._scored.clear()
            self._findings.clear()
            self._frames.clear()
            self._counts = {}
            dropped, self._dropped = self._dropped, 0
            taken = self._taken
        if dropped:
            LOG.error("%d rejects and warnings are missing in the gallery: its process did not run", dropped)
        return taken

    def stored(self) -> None:
        """The page has stored what was taken."""
        with self._lock:
            self._taken = Recent()

    def put_back(self) -> None:
        """The page has not stored what was taken last: the next call of `take` gives it again."""
        with self._lock:
            taken, self._taken = self._taken, Recent()
            for finding in reversed(taken.findings):
                self._findings.appendleft(finding)
            for key, outcomes in (taken.counts or {}).items():
                counts = self._counts.setdefault(key, {})
                for outcome, count in outcomes.items():
                    counts[outcome] = counts.get(outcome, 0) + count


def halved(image: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """A copy, uint8 (height, width, 3), halved until it fits: the only factor for which OpenCV averages pixels fast.

    A frame of 1920x1080 takes 0.8 ms; by another factor, one of 1280x720 takes 17.
    """
    small = image
    while small.shape[1] > width or small.shape[0] > height:
        rows, columns = max(1, small.shape[0] // 2), max(1, small.shape[1] // 2)
        small = cv2.resize(small[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    return image.copy() if small is image else small


def _replaces(new: Scored, old: Scored) -> bool:
    if (new.outcome == "reject") != (old.outcome == "reject"):
        return new.outcome == "reject"
    return new.time - old.time > _COPY_INTERVAL


def _finding(decision: Decision, saved: Path | None, detector: Detector) -> Finding:
    frame, result = decision.frame, decision.result
    assert result is not None, "a frame without a result has no verdict"
    height, width = (0, 0) if frame.image is None else frame.image.shape[:2]
    return Finding(
        id=decision.id,
        source=frame.source,
        frame=frame.index,
        time=frame.time.timestamp(),
        verdict=result.verdict,
        score=result.score,
        limit=result.limit,
        image_score=result.image_score,
        patch_score=result.patch_score,
        p_value=result.p_value,
        regions=result.regions,
        nearest=result.nearest_images,
        model=result.model,
        kit=result.kit,
        height=height,
        width=width,
        image=str(saved.absolute()) if saved else None,
        path=frame.path,
        facts=_facts(result, detector) if result.kit == detector.kit.sha256 else None,
    )


def _facts(result: Result, detector: Detector) -> KitFacts:
    calibration = detector.calibration
    return KitFacts(
        decided_by=detector.scoring.deciding_score(result.image_score, result.patch_score),
        is_least_p_value=result.p_value is not None and is_least_p_value(result.p_value, calibration),
        calibration_images=calibration.scores.size,
        independent=round(calibration.independent),
        path=detector.path,
        thumbnail=detector.manifest.files.get(thumbnail_file(result.nearest_images[0].row)),
    )
