"""The kit that a running stream scores with, and its replacement without dropping a frame."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import MscEdgeError
from msc_edge.kit.manifest import PrecisionChoice
from msc_edge.runtime.backends.interface import BackendChoice
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.config import LimitsConfig
from msc_edge.runtime.stream.logs import LOG


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """Outcome of a reload."""

    loaded: bool
    """False: the previous kit remains active."""
    message: str
    detector: Detector
    """The detector of the active kit after the reload."""


class ActiveKit:
    """Holds the active kit and replaces it. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        limits: LimitsConfig,
        precision: PrecisionChoice | None = None,
        backend: BackendChoice = "auto",
    ) -> None:
        """Load the kit. KitError when it does not verify, UsageError for limits that exclude each other."""
        self.path = path
        self._threads = threads
        self._precision: PrecisionChoice | None = precision
        self._backend: BackendChoice = backend
        self._limits = limits
        self._detector = self._load()
        self._loading = threading.Lock()

    @property
    def detector(self) -> Detector:
        """The detector of the active kit. Read it once per frame: a reload replaces it at any time."""
        return self._detector

    def _load(self) -> Detector:
        detector = Detector.load(self.path, threads=self._threads, precision=self._precision, backend=self._backend)
        if detector.manifest.decode.jpeg_keep:
            LOG.warning(
                "%s: trained on JPEG files decoded at reduced size; train without this option for cameras", self.path
            )
        if len(detector.manifest.models) > 1:
            LOG.info("%s: uses the %s model", self.path, detector.model)
        if detector.spec.name != "onnxruntime":
            LOG.info("%s: uses the %s backend", self.path, detector.spec.name)
        limits = self._limits
        return detector.with_limits(threshold=limits.threshold, false_alarm_rate=limits.false_alarm_rate)

    def reload(self, on_finished: Callable[[ReloadResult], None]) -> None:
        """Load the kit from its path again, on a thread. The previous kit scores meanwhile, and remains if this fails.

        `on_finished` is called once with the outcome. A reload during another one is refused.
        """
        if not self._loading.acquire(blocking=False):
            on_finished(ReloadResult(False, "a kit is being loaded already; try again afterwards", self._detector))
            return

        def work() -> None:
            try:
                result = self._replace()
            finally:
                self._loading.release()
            on_finished(result)

        threading.Thread(target=work, name="msc-edge reload", daemon=True).start()

    def _replace(self) -> ReloadResult:
        try:
            detector = self._load()
        except (MscEdgeError, MemoryError) as error:
            return self._refused(str(error) or "not enough memory")
        except Exception:
            LOG.exception("internal error while loading a kit; please report it")
            return self._refused("internal error, see the log")
        self._detector = detector
        sha256 = detector.kit.sha256[:12]
        return ReloadResult(True, f"{self.path} is active, SHA-256 of its manifest {sha256}", detector)

    def _refused(self, reason: str) -> ReloadResult:
        return ReloadResult(False, f"the previous kit remains active: {reason}", self._detector)
