"""The kits that a running stream scores with. Each is opened once, however many sources use it."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.errors import MscEdgeError
from msc_edge.kit.manifest import Precision
from msc_edge.runtime.backends.interface import BackendChoice
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.config_sections import LimitsConfig
from msc_edge.runtime.stream.learned import LearnedChange, LearnedImages
from msc_edge.runtime.stream.logs import LOG


@dataclass(frozen=True, slots=True)
class KitUse:
    """Which kit a source uses, and with which limits."""

    path: Path
    limits: LimitsConfig


@dataclass(frozen=True, slots=True)
class KitOptions:
    """How kits are opened; see `Detector.load`."""

    threads: int
    precision: Precision | None = None
    backend: BackendChoice = "auto"
    trusted_key: Path | None = None


class ActiveKits:
    """The detector of each source, replaced as a whole. Safe to use from several threads."""

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        """`detectors`: by the name of the source, as `load_kits` gives them."""
        self._learned = LearnedImages()
        self._changes: list[LearnedChange] = []
        self._lock = threading.Lock()
        self.activate(detectors)

    def detector(self, source: str) -> Detector:
        """The active detector of a source. Take it once per frame: a reload replaces it at any time."""
        return self._detectors[source]

    def all(self) -> list[Detector]:
        """The active detector of each source, in the order of the configuration."""
        return list(self._detectors.values())

    def sha256(self, source: str | None) -> str | None:
        """SHA-256 of the kit of a source; without a source, of the only kit, or None where there are several."""
        if source is not None and source in self._detectors:
            return self._detectors[source].kit.sha256
        found = {detector.kit.sha256 for detector in self.all()}
        return found.pop() if len(found) == 1 else None

    def activate(self, detectors: Mapping[str, Detector]) -> None:
        """Score with these detectors from the next frame on, and with what the station has learned for their kits."""
        with self._lock:
            self._of_kits = dict(detectors)
            self._learned.look_again()
            self._changes += self._learned.look(self._of_kits)
            self._apply()

    def learn(self) -> list[LearnedChange]:
        """Use what the station has learned meanwhile. The changes since the last call."""
        with self._lock:
            if found := list(self._learned.look(self._of_kits)):
                self._apply()
            changes, self._changes = self._changes + found, []
        return changes

    @property
    def failures(self) -> list[str]:
        """Why what the station has learned cannot be read; empty while it can."""
        return self._learned.failures

    def _apply(self) -> None:
        self._detectors = {source: self._learned.applied(detector) for source, detector in self._of_kits.items()}


def load_kits(
    uses: Mapping[str, KitUse], options: KitOptions, *, frames: Iterable[tuple[str, np.ndarray]] = ()
) -> dict[str, Detector]:
    """Open the kits of all sources, which score their check image then, and score a frame of each of these sources.

    `frames`: name of a source, and a frame, uint8 (height, width, 3) RGB. Raises KitError for a kit that does not
    verify or does not score, SourceError for a frame that it cannot score, UsageError for limits that exclude each
    other.
    """
    opened = {path: _opened(path, options) for path in dict.fromkeys(use.path for use in uses.values())}
    detectors = {
        source: opened[use.path].with_limits(
            threshold=use.limits.threshold, false_alarm_rate=use.limits.false_alarm_rate
        )
        for source, use in uses.items()
    }
    for source, frame in frames:
        try:
            detectors[source].score(frame)
        except MscEdgeError as error:
            raise type(error)(f"{uses[source].path}: the last frame of {source} cannot be scored: {error}") from error
    return detectors


def _opened(path: Path, options: KitOptions) -> Detector:
    detector = Detector.load(
        path,
        threads=options.threads,
        precision=options.precision,
        backend=options.backend,
        trusted_key=options.trusted_key,
    )
    if detector.manifest.decode.jpeg_keep:
        LOG.warning("%s: trained on JPEG files decoded at reduced size; train without this option for cameras", path)
    if len(detector.manifest.models) > 1:
        LOG.info("%s: uses the %s model", path, detector.model)
    if detector.spec.name != "onnxruntime":
        LOG.info("%s: uses the %s backend", path, detector.spec.name)
    return detector
