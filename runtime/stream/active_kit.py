"""The kit that a running stream scores with, and its replacement without dropping a frame."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import MscEdgeError
from msc_edge.kit.manifest import PrecisionChoice
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.openvino_backend import BackendChoice
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.config import LimitsConfig
from msc_edge.runtime.stream.logs import LOG


@dataclass(frozen=True, slots=True)
class LoadedKit:
    """A detector and the identity of its kit. Read it once per frame: both then belong together."""

    detector: Detector
    sha256: str
    """SHA-256 of the manifest."""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """Outcome of a reload."""

    loaded: bool
    """False: the previous kit remains active."""
    message: str
    kit: LoadedKit
    """The active kit after the reload."""


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
        self._current = self._load()
        self._loading = threading.Lock()

    @property
    def current(self) -> LoadedKit:
        """The active kit."""
        return self._current

    def _load(self) -> LoadedKit:
        with Kit.open(self.path) as kit:
            detector = Detector.of(kit, threads=self._threads, precision=self._precision, backend=self._backend)
        if kit.manifest.decode.jpeg_keep:
            LOG.warning(
                "%s: trained on JPEG files decoded at reduced size; train without this option for cameras", self.path
            )
        if len(kit.manifest.precisions) > 1:
            LOG.info("%s: uses the %s model", self.path, detector.precision)
        if detector.backend != "onnxruntime":
            LOG.info("%s: uses the %s backend", self.path, detector.backend)
        limits = self._limits
        return LoadedKit(
            detector.with_limits(threshold=limits.threshold, false_alarm_rate=limits.false_alarm_rate), kit.sha256
        )

    def reload(self, on_finished: Callable[[ReloadResult], None]) -> None:
        """Load the kit from its path again, on a thread. The previous kit scores meanwhile, and remains if this fails.

        `on_finished` is called once with the outcome. A reload during another one is refused.
        """
        if not self._loading.acquire(blocking=False):
            on_finished(ReloadResult(False, "a kit is being loaded already; try again afterwards", self._current))
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
            kit = self._load()
        except (MscEdgeError, MemoryError) as error:
            return self._refused(str(error) or "not enough memory")
        except Exception:
            LOG.exception("internal error while loading a kit; please report it")
            return self._refused("internal error, see the log")
        self._current = kit
        return ReloadResult(True, f"{self.path} is active, SHA-256 of its manifest {kit.sha256[:12]}", kit)

    def _refused(self, reason: str) -> ReloadResult:
        return ReloadResult(False, f"the previous kit remains active: {reason}", self._current)
