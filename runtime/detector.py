"""The detector: a kit, opened and ready to score images."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np

from msc_edge.bank import Bank, open_hnsw
from msc_edge.calibration import Calibration, Limit, Limits
from msc_edge.errors import KitError, MissingExtraError, SourceError, UnreadableImageError, UsageError
from msc_edge.images import bytes_of, decode_image
from msc_edge.kit.layout import INDEXES, MODELS
from msc_edge.kit.manifest import Manifest, Precision, PrecisionChoice
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.backends.openvino_backend import Backend, BackendChoice, BackendName
from msc_edge.runtime.backends.selection import select_backend
from msc_edge.runtime.results.result import NearestImage, Result

SearchChoice = Literal["auto", "exact", "hnsw"]


@dataclass(frozen=True)
class Detector:
    """Scores images against a kit. Safe to use from several threads at once."""

    manifest: Manifest
    limits: Limits
    calibration: Calibration
    bank: Bank
    model: Backend
    normals: list[str]
    precision: Precision = "fp32"
    backend: BackendName = "onnxruntime"

    @classmethod
    def load(
        cls,
        kit: str | Path,
        *,
        threads: int | None = None,
        search: SearchChoice = "auto",
        precision: PrecisionChoice | None = None,
        backend: BackendChoice = "auto",
        spin: bool = False,
    ) -> Self:
        """Verify a kit (a folder or a .zip) and open it.

        `threads` work on one image; without it, all cores that this process may use. `search` is the kit's own
        choice under `auto`, and exact where hnswlib is not installed; the scores are the same. `precision` is the
        kit's own choice unless told: each has scores and limits of its own; see `select_backend`. `backend`: onnxruntime,
        or OpenVINO where it is installed and faster. `spin`: see OnnxRuntimeBackend. Raises KitError when any byte of the
        kit is not as it was written.
        """
        with Kit.open(kit) as opened:
            return cls.of(opened, threads=threads, search=search, precision=precision, backend=backend, spin=spin)

    @classmethod
    def of(
        cls,
        kit: Kit,
        *,
        threads: int | None = None,
        search: SearchChoice = "auto",
        precision: PrecisionChoice | None = None,
        backend: BackendChoice = "auto",
        spin: bool = False,
    ) -> Self:
        """The detector of a kit that is open already; see `load`. The kit may be closed afterwards."""
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; expected at least 1")
        if search not in get_args(SearchChoice):
            raise UsageError(f"search is {search!r}; expected one of {', '.join(get_args(SearchChoice))}")
        way, model = select_backend(kit, precision, backend, threads=threads or usable_cores(), spin=spin)
        calibration = kit.manifest.calibration_of(way.precision)
        return cls(
            manifest=kit.manifest,
            limits=calibration.limits,
            calibration=calibration.calibrated,
            bank=open_bank(kit, search, way.precision),
            model=model,
            normals=kit.normals(),
            precision=way.precision,
            backend=way.backend,
        )

    def with_limits(self, *, false_alarm_rate: float | None = None, threshold: float | None = None) -> Self:
        """The same detector with another reject limit: for a rate in (0, 1), or at a score.

        The limit for `warn` stays as the kit has it where that is below the new reject limit, else it joins it.
        """
        if false_alarm_rate is not None and threshold is not None:
            raise UsageError("a false-alarm rate and a threshold were given; the rate sets the threshold, give one")
        if false_alarm_rate is not None:
            reject = self.calibration.limit(false_alarm_rate)
        elif threshold is not None:
            if not math.isfinite(threshold):
                raise UsageError(f"threshold {threshold}: expected a finite number")
            reject = Limit(score=threshold, target_rate=None, expected_rate=None)
        else:
            return self
        warn = self.limits.warn if self.limits.warn.score < reject.score else reject
        return replace(self, limits=Limits(warn=warn, reject=reject))

    def score(self, frame: np.ndarray, *, order: Literal["RGB", "BGR"] = "RGB") -> Result:
        """Score one image, uint8 (height, width, 3). OpenCV's cameras give `order="BGR"`.

        Raises SourceError when the frame is something else, or too small for the kit's region of interest.
        """
        return self.score_embedding(self.embed(frame, order=order))

    def score_file(self, path: str | Path) -> Result:
        """Score one image file, decoded as the kit's policy says. UnreadableImageError when it cannot be read."""
        return self.score_bytes(bytes_of(Path(path)))

    def score_bytes(self, data: bytes | np.ndarray) -> Result:
        """Score the content of an image file, as bytes or uint8 (n,); see `score_file`."""
        image = decode_image(np.frombuffer(data, np.uint8), self.manifest.decode)
        try:
            return self.score(image)
        except SourceError as error:
            raise UnreadableImageError(str(error)) from error

    def embed(self, frame: np.ndarray, *, order: Literal["RGB", "BGR"] = "RGB") -> np.ndarray:
        """Unit embedding, float32 (dim,), of one image; see `score`."""
        if order not in ("RGB", "BGR"):
            raise UsageError(f"order is {order!r}; expected 'RGB' or 'BGR'")
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise SourceError(f"expected an image as uint8 (height, width, 3), got {found}")
        height, width = frame.shape[:2]
        if height == 0 or width == 0:
            raise SourceError(f"the image is empty: {width}x{height} pixels")
        region = self.manifest.preprocessing.region
        if region and not region.fits(height=height, width=width):
            raise SourceError(
                f"the image is {width}x{height}, and the kit looks at {region.width}x{region.height} pixels from "
                f"({region.x}, {region.y}); give images of the size that was trained on"
            )
        return self.model.embed(np.ascontiguousarray(frame[..., ::-1] if order == "BGR" else frame))

    def score_embedding(self, embedding: np.ndarray) -> Result:
        """Score, p-value, verdict and nearest_images for an embedding of `embed`. KitError when that is not finite."""
        found = self.bank.nearest(embedding)
        if not math.isfinite(found.score):
            raise KitError(f"{MODELS[self.precision]}: the embedding of this image is not finite; export the kit again")
        return Result(
            score=found.score,
            p_value=self.calibration.p_value(found.score),
            verdict=self.limits.verdict(found.score),
            nearest_images=tuple(
                NearestImage(row=row, path=self.normals[row], distance=distance)
                for row, distance in zip(found.rows, found.distances, strict=True)
            ),
        )


def open_bank(kit: Kit, choice: SearchChoice, precision: Precision) -> Bank:
    """The bank of one of the kit's models, with the search to use; see Detector.load."""
    info = kit.manifest.bank_of(precision)
    embeddings = kit.embeddings(precision)
    wanted = info.search if choice == "auto" else choice
    search = None
    if wanted == "hnsw":
        if info.index is None:
            raise UsageError("this kit has no HNSW index; use exact search, or export it again with hnswlib installed")
        try:
            search = open_hnsw(kit.path(INDEXES[precision]), embeddings, ef=info.index.ef)
        except MissingExtraError:
            if choice == "hnsw":
                raise
    return Bank(embeddings, search=search, k=info.k)
