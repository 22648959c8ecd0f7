"""The kit that a running stream scores with, and its exchange for another without missing a frame."""

import threading
from collections.abc import Callable
from pathlib import Path

from msc_edge.errors import MscEdgeError
from msc_edge.kit.manifest import PrecisionChoice
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.openvino_backend import BackendChoice
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.config import LimitsConfig
from msc_edge.runtime.stream.logs import LOG


class ActiveKit:
    """A detector, and the way to another one. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        limits: LimitsConfig,
        precision: PrecisionChoice | None = None,
        backend: BackendChoice = "auto",
    ) -> None:
        """Load the kit. KitError when it does not verify."""
        self.path = path
        self._threads = threads
        self._precision: PrecisionChoice | None = precision
        self._engine: BackendChoice = backend
        self._limits = limits
        self._detector, self._sha256 = self._load()
        self._loading = threading.Lock()

    def _load(self) -> tuple[Detector, str]:
        with Kit.open(self.path) as kit:
            detector = Detector.of(kit, threads=self._threads, precision=self._precision, backend=self._engine)
        if kit.manifest.decode.jpeg_keep:
            LOG.warning("%s: learnt from JPEG files decoded at a reduced size; train for cameras without it", self.path)
        if len(kit.manifest.precisions) > 1:
            LOG.info("%s: the model in %s is used", self.path, detector.precision)
        if detector.backend != "onnxruntime":
            LOG.info("%s: computed by %s", self.path, detector.backend)
        limits = self._limits
        return (
            detector.with_limits(threshold=limits.threshold, false_alarm_rate=limits.false_alarm_rate),
            kit.sha256,
        )

    @property
    def detector(self) -> Detector:
        """The one in force. A frame is scored with one detector throughout: ask once."""
        return self._detector

    @property
    def sha256(self) -> str:
        """Of the manifest."""
        return self._sha256

    def reload(self, finished: Callable[[bool, str], None]) -> None:
        """Load the kit from its path again, on a thread; the old one scores meanwhile, and stays if this fails.

        `finished` is told whether it was loaded, and a sentence. While one load is under way, another is turned down.
        """
        if not self._loading.acquire(blocking=False):
            finished(False, "a kit is being loaded already; try again when that is done")
            return

        def work() -> None:
            try:
                loaded, words = self._exchange()
            finally:
                self._loading.release()
            finished(loaded, words)

        threading.Thread(target=work, name="msc-edge reload", daemon=True).start()

    def _exchange(self) -> tuple[bool, str]:
        try:
            self._detector, self._sha256 = self._load()
        except (MscEdgeError, MemoryError) as error:
            return False, f"the kit before stays in force: {error or 'there is not enough memory'}"
        except Exception:
            LOG.exception("a defect of msc-edge kept a kit from being loaded")
            return False, "the kit before stays in force: a defect of msc-edge, see the log"
        return True, f"{self.path} is in force, SHA-256 of its manifest {self.sha256[:12]}"
