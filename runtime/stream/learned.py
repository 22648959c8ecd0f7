"""What the station has learned for the kits of a stream: found beside them, at the start and whenever it changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import MscEdgeError
from msc_edge.runtime.additions import Additions
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.learning.additions_file import AdditionsFile, additions_path
from msc_edge.runtime.learning.learner import learned_by
from msc_edge.text import many


@dataclass(frozen=True, slots=True)
class LearnedChange:
    """What a stream has learned, or why not."""

    used: bool
    """False: what was learned before still counts."""
    message: str


class LearnedImages:
    """Reads the additions of each kit again when their file has changed."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Path, str], tuple[int, ...] | None] = {}
        self._additions: dict[tuple[Path, str], Additions] = {}

    def look(self, detectors: Mapping[str, Detector]) -> Iterator[LearnedChange]:
        """Yields a change for each file that has changed. `detectors`: of the kits alone, by source."""
        for detector in detectors.values():
            key = _key(detector)
            path = additions_path(detector.path, detector.kit)
            stamp = _stamp(path)
            if (key in self._seen and self._seen[key] == stamp) or (key not in self._seen and stamp is None):
                continue
            self._seen[key] = stamp
            yield self._read(detector, path, key, exists=stamp is not None)

    def _read(self, detector: Detector, path: Path, key: tuple[Path, str], *, exists: bool) -> LearnedChange:
        before = len(self._additions.get(key, ()))
        try:
            additions = Additions()
            if exists:
                with AdditionsFile.open(detector.path, detector.kit) as file:
                    additions = learned_by(detector, file)
        except MscEdgeError as error:
            return LearnedChange(False, f"what this station has learned is not used: {error}")
        self._additions[key] = additions
        learned = many(len(additions), "learned image")
        return LearnedChange(True, f"{path.name}: {learned} for the model {detector.model}, before {before}")

    def applied(self, detector: Detector) -> Detector:
        """The detector with what was learned for its kit and model."""
        additions = self._additions.get(_key(detector))
        return detector.with_additions(additions) if additions else detector


def _key(detector: Detector) -> tuple[Path, str]:
    return additions_path(detector.path, detector.kit), detector.model


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Changes when the file does; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
