"""The detector: an open kit that scores images."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, get_args, overload

import numpy as np

from msc_edge.anomaly_map import AnomalyMap, MapGeometry, smoothed
from msc_edge.arguments import path_argument, whole_argument
from msc_edge.bank import Bank
from msc_edge.calibration import Calibration, Limit, Limits
from msc_edge.errors import KitError, SourceError, UnreadableImageError, UsageError
from msc_edge.images import bytes_of, decode_image, file_content, frame_to_rgb
from msc_edge.kit.manifest import Manifest, Precision
from msc_edge.kit.model_entry import CalibrationInfo, RegionCalibration
from msc_edge.kit.opening import Kit, KitIdentity, enough_memory
from msc_edge.kit.thumbnails import read_thumbnail
from msc_edge.runtime.additions import Additions
from msc_edge.runtime.additions_file import station_additions
from msc_edge.runtime.backends.check_image import check_image
from msc_edge.runtime.backends.interface import Backend, BackendChoice, ModelOutput
from msc_edge.runtime.backends.selection import BackendSpec, select_backend
from msc_edge.runtime.processor import check_threads, usable_cores
from msc_edge.runtime.region import refuse_large_region, refuse_outside_region
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.search import SearchChoice, open_bank
from msc_edge.runtime.threshold import limits_with, reject_limit
from msc_edge.scoring import Scoring
from msc_edge.text import one_line

ChannelOrder = Literal["RGB", "BGR"]
Frames = list[np.ndarray] | tuple[np.ndarray, ...]
_UNIT = 1e-3  # deviation of the length of an embedding from 1


@dataclass(frozen=True, repr=False)
class Detector:
    """Scores images with a kit. Safe to use from several threads."""

    kit: KitIdentity
    path: Path
    """The folder or .zip of the kit, absolute."""
    manifest: Manifest
    spec: BackendSpec
    """Which model scores, and in which library."""
    backend: Backend
    bank: Bank
    limits: Limits
    calibration: Calibration
    regions: RegionCalibration | None
    """Limit of the anomaly map; None: the kit compares whole images only."""
    normal_images: list[str]
    """The normal image behind each row of the memory bank."""
    additions: Additions = field(default_factory=Additions)
    """The normal images that were learned at the line."""
    given_limit: Limit | None = None
    """The reject limit of `with_limits`; None: that of the calibration."""

    @classmethod
    def load(
        cls,
        kit: str | Path,
        *,
        threads: int | None = None,
        search: SearchChoice = "auto",
        precision: Precision | None = None,
        backend: BackendChoice = "auto",
        trusted_key: str | Path | None = None,
        learned: bool = False,
    ) -> Self:
        """Verify a kit (a folder or a .zip) and open it.

        `threads` compute one image; the default is all cores that this process may use. `search`: `auto` is the kit's
        default, and exact search where hnswlib is not installed; the scores are the same. `precision`: the model that
        scores, by default the kit's; each has its own limits. `backend`: see `select_backend`. `trusted_key`: see
        `Kit.open`. `learned`: with what this station has learned for the kit, as a stream scores; UsageError where it
        has learned nothing. KitError when any byte of the kit was changed, or its check image gets no score or lacks
        memory.
        """
        path = path_argument("kit", kit, "'kit'")
        with enough_memory(path), Kit.open(path, trusted_key=trusted_key) as opened:
            return cls.of(opened, threads=threads, search=search, precision=precision, backend=backend, learned=learned)

    @classmethod
    def of(
        cls,
        kit: Kit,
        *,
        threads: int | None = None,
        search: SearchChoice = "auto",
        precision: Precision | None = None,
        backend: BackendChoice = "auto",
        learned: bool = False,
    ) -> Self:
        """The detector of an open kit; see `load`. The kit may be closed afterwards."""
        check_threads(threads)
        if search not in get_args(SearchChoice):
            raise UsageError(f"search is {search!r}; expected one of {', '.join(get_args(SearchChoice))}")
        refuse_large_region(kit.manifest)
        with enough_memory(kit.path):
            spec, selected = select_backend(kit, precision, backend, threads=threads or usable_cores())
            calibration = kit.model(spec.precision).calibration
            detector = cls(
                kit=kit.identity,
                path=kit.path.absolute(),
                manifest=kit.manifest,
                spec=spec,
                backend=selected,
                bank=open_bank(kit, search, spec.precision),
                limits=calibration.limits,
                calibration=calibration.calibration,
                regions=calibration.regions,
                normal_images=kit.normal_images(),
            )
            detector._score_check_image()
        return detector.with_additions(station_additions(kit, spec.precision)) if learned else detector

    def _score_check_image(self) -> None:
        file = self.manifest.models[self.model].file
        image = check_image(self.manifest.preprocessing)
        try:
            output = self.run(image)
        except SourceError as error:
            raise KitError(f"{file}: does not process its check image ({error}); export the kit again") from error
        length = float(np.linalg.norm(output.embedding))
        if not abs(length - 1) <= _UNIT:  # also true for NaN
            raise KitError(f"{file}: the embedding of the check image has length {length:.6g}, not 1; export it again")
        self.score_output(output, image)

    def __repr__(self) -> str:
        return (
            f"Detector(kit={self.kit.name!r}, sha256={self.kit.sha256[:12]!r}, model={self.model!r}, "
            f"backend={self.spec.name!r}, normal_images={len(self.normal_images)}, "
            f"limit={self.limits.reject.score:.6g})"
        )

    @property
    def scoring(self) -> Scoring:
        """What the score is made of."""
        return self.manifest.models[self.model].scoring

    @property
    def model(self) -> Precision:
        """The model of the kit that scores: `fp32` or `int8`."""
        return self.spec.precision

    def with_limits(self, *, false_alarm_rate: float | None = None, threshold: float | None = None) -> Self:
        """The same detector with another reject limit: for a target false-alarm rate in (0, 1), or at a score.

        The warn limit stays where it is below the new reject limit; otherwise it becomes equal to it, and no image gets
        `warn`. A score equal to a limit is not above it. For a threshold see `limit_at`.
        """
        given = reject_limit(self.scoring, self.calibration, self.limits.reject, false_alarm_rate, threshold)
        return self if given is None else replace(self, limits=limits_with(self.limits, given), given_limit=given)

    def with_calibration(self, info: CalibrationInfo) -> Self:
        """The same detector with the limits of another calibration. What `with_limits` was given still counts."""
        given = self.given_limit
        if given is not None and given.target_rate is not None:
            given = info.calibration.limit(given.target_rate)
        limits = info.limits if given is None else limits_with(info.limits, given)
        return replace(self, limits=limits, calibration=info.calibration, regions=info.regions, given_limit=given)

    def with_additions(self, additions: Additions) -> Self:
        """The same detector after it has learned normal images. One that has learned already is a ValueError.

        Each addition counts as k rows of the memory bank: an image like it is normal, however far the others are.
        Station limits take the place of those of the kit.
        """
        if self.additions:
            raise ValueError("this detector has additions already; take the one without")
        if not additions:
            return self
        limited = self.with_calibration(additions.calibration) if additions.calibration else self
        bank = self.bank.extended(additions.embeddings.repeat(self.bank.k, axis=0))
        names = [name for name in additions.names for _ in range(self.bank.k)]
        return replace(limited, bank=bank, normal_images=[*self.normal_images, *names], additions=additions)

    @overload
    def score(self, frame: np.ndarray, *, order: ChannelOrder = "RGB", heatmap: bool = False) -> Result: ...
    @overload
    def score(self, frame: Frames, *, order: ChannelOrder = "RGB", heatmap: bool = False) -> list[Result]: ...
    def score(
        self, frame: np.ndarray | Frames, *, order: ChannelOrder = "RGB", heatmap: bool = False
    ) -> Result | list[Result]:
        """Score one frame; or each frame of a list, one after the other, with a list of results in its order.

        A frame is an image as an array: (height, width) or (height, width, 1), grey, or (height, width, 3), RGB.
        OpenCV's cameras need `order="BGR"`. uint8 has 8 bits a channel. uint16 needs a kit that was trained with
        `--bit-depth`, and has values of that many bits: 0 to 4095 for 12. A frame has the score of an image file with
        the same pixels. With `heatmap` the result has an `anomaly_map`, unless the kit compares whole images only.
        Raises SourceError when a frame is something else, or too small for the kit's region of interest.
        """
        if not isinstance(frame, list | tuple):
            return self.score_output(self.run(frame, order=order), frame, heatmap=heatmap)
        results: list[Result] = []
        for number, each in enumerate(frame):
            try:
                results.append(self.score_output(self.run(each, order=order), each, heatmap=heatmap))
            except SourceError as error:
                raise type(error)(f"frame {number} of the list: {error}") from error
        return results

    def score_file(self, path: str | Path, *, heatmap: bool = False) -> Result:
        """Score one image file, decoded by the kit's policy. UnreadableImageError names it when it cannot be read."""
        path = path_argument("path", path, "'part.png'")
        try:
            return self.score_bytes(bytes_of(path), heatmap=heatmap)
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{one_line(str(path))}: {error}") from error

    def score_bytes(self, data: bytes | np.ndarray, *, heatmap: bool = False) -> Result:
        """Score the content of an image file, as bytes or uint8 (n,); see `score_file`."""
        image = decode_image(file_content(data), self.manifest.decode)
        return self.score_decoded(image, heatmap=heatmap)

    def score_decoded(self, image: np.ndarray, *, heatmap: bool = False) -> Result:
        """Score an image that came from a file; see `score`. UnreadableImageError where it cannot be scored."""
        try:
            return self.score(image, heatmap=heatmap)
        except SourceError as error:
            raise UnreadableImageError(str(error)) from error

    def thumbnail(self, row: int) -> np.ndarray:
        """The thumbnail of the normal image in a row of the memory bank: uint8 (height, width, 3), RGB.

        The longer side has at most 256 pixels. The file is read from the kit and checked at each call. Raises
        UsageError for a row that the bank does not have and for a kit without thumbnails, and KitError when the kit has
        changed or is gone. The rows of additions come after those of the kit.
        """
        of_kit = self.manifest.normal_images.count
        row = whole_argument("row of the memory bank", row, least=0, most=len(self.normal_images) - 1)
        if row >= of_kit:
            return self.additions.learned[(row - of_kit) // self.bank.k].thumbnail
        return read_thumbnail(self.path, self.manifest, row)

    def embed(self, frame: np.ndarray, *, order: ChannelOrder = "RGB") -> np.ndarray:
        """Unit embedding, float32 (dim,), of one image; see `score`."""
        return self.run(frame, order=order).embedding

    def run(self, frame: np.ndarray, *, order: ChannelOrder = "RGB") -> ModelOutput:
        """Run the model on one frame; see `score`."""
        if order not in get_args(ChannelOrder):
            raise UsageError(f"order is {order!r}; expected 'RGB' or 'BGR'")
        image = frame_to_rgb(frame, self.manifest.decode)
        refuse_outside_region(self.manifest, image)
        return self.backend.run(np.ascontiguousarray(image[..., ::-1] if order == "BGR" else image))

    def score_output(self, output: ModelOutput, frame: np.ndarray, *, heatmap: bool = False) -> Result:
        """The result for an output of `run` on this frame. KitError when the output is no embedding."""
        found = self.bank.nearest(output.embedding)
        anomaly_map = self.map_of(output, height=frame.shape[0], width=frame.shape[1])
        patch_score = anomaly_map.peak if anomaly_map else None
        score = self.scoring.score(found.score, patch_score)
        # All parts: the larger of two numbers may hide that the other one is NaN.
        is_finite = all(math.isfinite(each) for each in (score, found.score, patch_score or 0.0))
        if not is_finite or not abs(float(np.linalg.norm(output.embedding)) - 1) <= _UNIT:
            file = self.manifest.models[self.model].file
            raise KitError(
                f"{file}: the output for this image is not finite or not of unit length; export the kit again"
            )
        return Result(
            score=score,
            image_score=found.score,
            patch_score=patch_score,
            p_value=None if self.limits.reject.target_rate is None else self.calibration.p_value(score),
            verdict=self.limits.verdict(score),
            limit=self.limits.reject.score,
            regions=anomaly_map.regions() if anomaly_map else (),
            nearest_images=tuple(
                NearestImage(row=row, path=self.normal_images[row], distance=distance)
                for row, distance in zip(found.rows, found.distances, strict=True)
            ),
            model=self.model,
            kit=self.kit.sha256,
            learned=len(self.additions),
            learned_sha256=self.additions.sha256,
            grid_map=anomaly_map,
            embedding=output.embedding,
            anomaly_map=anomaly_map.at_frame() if anomaly_map and heatmap else None,
        )

    def map_of(self, output: ModelOutput, *, height: int, width: int) -> AnomalyMap | None:
        """The map of an output of `run` on a frame of this size; None for a kit that compares whole images only."""
        settings, patches = self.scoring.map, self.manifest.models[self.model].outputs.patch_distances
        if output.patch_distances is None or settings is None or patches is None or self.regions is None:
            return None
        geometry = MapGeometry.of(self.manifest.preprocessing, height=height, width=width, stride=patches.stride)
        distances = output.patch_distances
        if self.additions and output.patch_embeddings is not None:
            distances = self.additions.distances(distances, output.patch_embeddings)
        grid = smoothed(distances, smoothing=settings.smoothing)
        return AnomalyMap(grid, geometry, limit=self.regions.limit.score, least_area=settings.least_area)
