"""What the station has learned for the kits of a stream: found beside them, at the start and whenever it changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import MscEdgeError
from msc_edge.runtime.additions import Additions
from msc_edge.runtime.additions_database import additions_path
from msc_edge.runtime.additions_file import AdditionsFile
from msc_edge.runtime.detector import Detector
from msc_edge.text import many


@dataclass(frozen=True, slots=True)
class LearnedChange:
    """What a stream has learned, or why not."""

    used: bool
    """False: what was learned before still counts."""
    message: str
    count: int | None = None
    """Learned images that count now; None where they cannot be read."""


class LearnedImages:
    """Reads the additions of each kit again when their file has changed."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Path, str], tuple[int, ...] | None] = {}
        self._additions: dict[tuple[Path, str], Additions] = {}
        self._failures: dict[tuple[Path, str], str] = {}

    @property
    def failures(self) -> list[str]:
        """Why what was learned cannot be read; empty while it can."""
        return list(self._failures.values())

    def look_again(self) -> None:
        """Let `look` read all files, also those that have not changed."""
        self._seen.clear()

    def look(self, detectors: Mapping[str, Detector]) -> Iterator[LearnedChange]:
        """Yields what has changed for each kit. `detectors`: of the kits alone, by source."""
        used = {_key(detector) for detector in detectors.values()}
        for kept in (self._seen, self._additions, self._failures):
            for key in kept.keys() - used:  # of a kit that a reload has replaced
                del kept[key]
        for detector in detectors.values():
            key = _key(detector)
            stamp = _stamp(key[0])
            if key not in self._seen or stamp != self._seen[key]:
                self._seen[key] = stamp
                if change := self._read(detector, exists=stamp is not None):
                    yield change

    def _read(self, detector: Detector, *, exists: bool) -> LearnedChange | None:
        key = _key(detector)
        before, was_refused = self._additions.get(key, Additions()), key in self._failures
        try:
            additions = _additions_of(detector) if exists else Additions()
        except MscEdgeError as error:
            still = f"{many(len(before), 'learned image')} read before still count" if before else "nothing counts"
            self._failures[key] = f"what this station has learned cannot be read, and {still}: {error}"
            return LearnedChange(False, self._failures[key])
        self._additions[key] = additions
        self._failures.pop(key, None)
        same = (additions.sha256, additions.withdrawn) == (before.sha256, before.withdrawn)
        if same and not was_refused:
            return None  # a confirmed defect was kept, or the file has just been created
        learned = many(len(additions), "learned image")
        counted = f"{key[0].name}: {learned} for the model {detector.model}, before {len(before)}"
        limit = self.applied(detector).limits.reject.score
        limits = _described_limits(before, additions, limit)
        return LearnedChange(True, "; ".join([counted, *_described_images(before, additions), *limits]), len(additions))

    def applied(self, detector: Detector) -> Detector:
        """The detector with what was learned for its kit and model."""
        additions = self._additions.get(_key(detector))
        return detector.with_additions(additions) if additions else detector


def _described_images(before: Additions, now: Additions) -> Iterator[str]:
    old, new = ({each.id: each.name for each in additions.learned} for additions in (before, now))
    for what, changed in (("added", new.keys() - old.keys()), ("undone", old.keys() - new.keys())):
        if changed:
            yield f"{what}: {', '.join(f'{id} ({(old | new)[id]})' for id in sorted(changed))}"


def _described_limits(before: Additions, now: Additions, limit: float) -> Iterator[str]:
    if now.withdrawn:
        yield now.withdrawn
    elif now.calibration != before.calibration:
        whose = "the station limits" if now.calibration else "the limits of the kit"
        yield f"{whose} count: reject above {limit:.6g}"


def _additions_of(detector: Detector) -> Additions:
    with AdditionsFile.open(detector.path, detector.kit) as file:
        return file.additions(detector.model, detector.manifest.models[detector.model])


def _key(detector: Detector) -> tuple[Path, str]:
    return additions_path(detector.path, detector.kit), detector.model


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Changes when the file does; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
