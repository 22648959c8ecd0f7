"""Learning for one kit: an image is checked, and counts if all guards agree; it can be undone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np

from msc_edge.calibration import Verdict
from msc_edge.errors import AlreadyNormalError, UnreadableImageError, UsageError
from msc_edge.images import bytes_of, decode_image
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.patch_rows import covering
from msc_edge.runtime.additions import Addition, Additions, LearnedRows
from msc_edge.runtime.additions_file import AdditionsFile, digest_of
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.kept_images import Change, KeptImage, Kind
from msc_edge.runtime.learning.guards import Guards, Kept
from msc_edge.runtime.results.result import Result
from msc_edge.text import one_line

PER_DAY = 20
"""Additions of one day that are not undone, by default: more than this is another part or another lamp, not noise."""
MAX_ADDITIONS = 50
"""Of one kit. More would cost too much time for each frame, and the kit no longer fits the line."""


@dataclass(frozen=True)
class Learned:
    """What an addition did."""

    image: KeptImage
    before: Result
    """Of this image, with the additions so far."""
    after: Result
    patches: int
    """Rows that were learned from its patches."""
    defects: Kept
    synthetic: Kept


@dataclass(frozen=True)
class _Image:
    name: str
    content: bytes
    digest: str
    decoded: np.ndarray


class Learner:
    """A kit and what a station has learned for it. Close it, or use it as a context manager."""

    def __init__(
        self,
        kit: str | Path,
        *,
        threads: int | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        trusted_key: Path | None = None,
        per_day: int = PER_DAY,
    ) -> None:
        """Open the kit, each of its models that runs here, and the additions file, if there is one.

        `false_alarm_rate`, `threshold`: the reject limit of the line, see `Detector.with_limits`. Raises KitError,
        UsageError, OutputError.
        """
        with Kit.open(kit, trusted_key=trusted_key) as opened:
            default = Detector.of(opened, threads=threads)
            self._detectors: dict[Precision, Detector] = {default.model: default}
            for model in opened.manifest.models:
                if model not in self._detectors:
                    try:
                        self._detectors[model] = Detector.of(opened, threads=threads, precision=model)
                    except UsageError:  # this processor computes other int8 embeddings: a stream cannot use it here
                        continue
        self._model: Precision = default.model
        self._guards: dict[tuple[Precision, tuple[int, ...]], Guards] = {}
        self._detectors[self._model] = default.with_limits(false_alarm_rate=false_alarm_rate, threshold=threshold)
        self._per_day = per_day
        self.file = AdditionsFile.open(default.path, default.kit, create=True)

    @property
    def models(self) -> Sequence[Precision]:
        """The models that learn."""
        return tuple(self._detectors)

    @property
    def detector(self) -> Detector:
        """Of the kit's default model, with what was learned so far."""
        return self._with(self._model)

    def add(self, path: Path, *, by: str, reason: str) -> Learned:
        """Learn a normal image. AlreadyNormalError where it is one, UsageError where a guard refuses it.

        Nothing is changed then. UnreadableImageError where it cannot be read or is not an image for this kit.
        """
        image = self._read(path)
        self._refuse_known(image)
        self._refuse_too_many()
        kit = self._detectors[self._model]
        if kit.manifest.models[self._model].outputs.patch_distances and not self._learns_patches:
            raise UsageError(
                f"{kit.path}: was exported by an earlier msc-edge, whose models do not give patch embeddings; export "
                "the kit again"
            )
        before = {model: self._with(model) for model in self.models}
        was = before[self._model].score(image.decoded)
        if was.verdict == "normal":
            raise AlreadyNormalError(
                f"{image.name}: is normal already (score {was.score:.6g}, limit {was.limit:.6g}); there is nothing to "
                "learn"
            )
        rows: dict[Precision, LearnedRows] = {model: self._rows(model, image.decoded) for model in self.models}
        after = {model: self._with(model, Addition.candidate(rows[model])) for model in self.models}
        found = {model: self._guarded(model, before[model], after[model], image) for model in self.models}
        kept = self.file.add("addition", image.name, image.content, image.decoded, rows, Change.now(by, reason))
        defects, synthetic = found[self._model]
        now = self.detector.score(image.decoded)
        return Learned(kept, was, now, len(rows[self._model].patches), defects, synthetic)

    def keep_defect(self, path: Path, *, by: str, reason: str) -> tuple[KeptImage, Verdict]:
        """Keep a confirmed defect, with the verdict of the kit alone: no addition may make that milder.

        UsageError where it is kept or learned already, and where what was learned has made its verdict milder already.
        """
        image = self._read(path)
        self._refuse_known(image)
        was, now = self._alone(self._model).score(image.decoded).verdict, self.detector.score(image.decoded).verdict
        if was == "reject" and now != "reject":
            raise UsageError(
                f"{image.name}: the kit rejects it, and with what was learned it is {now!r}; undo the additions that "
                "show a defect first (--list, --undo)"
            )
        return self.file.add("defect", image.name, image.content, image.decoded, {}, Change.now(by, reason)), was

    @property
    def _learns_patches(self) -> bool:
        return all(
            detector.manifest.models[model].outputs.patch_embeddings for model, detector in self._detectors.items()
        )

    def _guards_of(self, model: Precision, image: np.ndarray) -> Guards:
        """Of images of this size. They are made once, unless the size matters to the model."""
        kit = self._detectors[model]
        frame = image.shape[:2] if kit.manifest.preprocessing.region else (0, 0)
        if (model, frame) not in self._guards:
            self._guards[model, frame] = Guards(kit, image.shape[:2])
        return self._guards[model, frame]

    def _guarded(self, model: Precision, before: Detector, after: Detector, image: _Image) -> tuple[Kept, Kept]:
        guards, confirmed = self._guards_of(model, image.decoded), self.file.decoded("defect", before.manifest.decode)
        alone = self._alone(model)
        try:
            guards.refuse_other_shape(image.decoded)
            guards.refuse_empty_frame(image.decoded)
            defects = guards.defects(confirmed, alone, before, after)
            synthetic = guards.synthetic(alone, before, after)
        except UsageError as error:
            raise UsageError(f"{image.name}: is not learned: {error}") from error
        if not defects.of and not synthetic.of:
            raise UsageError(
                f"{image.name}: is not learned: nothing shows what it would cost. The kit has no thumbnails, or "
                "rejects no synthetic anomaly at this limit, and rejects no confirmed defect that the station keeps; "
                "keep some with --defect, or export the kit with --thumbnails"
            )
        return defects, synthetic

    def _read(self, path: Path) -> _Image:
        kit = self._detectors[self._model]
        try:
            content = bytes_of(path)
            decoded = decode_image(content, kit.manifest.decode)
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{one_line(str(path))}: {error}") from error
        data = content.tobytes()
        return _Image(one_line(path.name), data, digest_of(data), decoded)

    def _refuse_known(self, image: _Image) -> None:
        what: dict[Kind, str] = {"addition": "an addition", "defect": "a confirmed defect"}
        for kept in self.file.images():
            if kept.digest == image.digest and kept.undone is None:
                raise UsageError(f"{image.name}: is {what[kept.kind]} already, number {kept.id}; --undo it first")

    def _refuse_too_many(self) -> None:
        active = [kept for kept in self.file.images() if kept.kind == "addition" and kept.undone is None]
        if len(active) >= MAX_ADDITIONS:
            raise UsageError(f"{MAX_ADDITIONS} additions are the most; train a new kit with these images, too")
        today = datetime.now().astimezone().date()
        days = [datetime.fromisoformat(kept.added.time).astimezone().date() for kept in active]
        if days.count(today) >= self._per_day:
            raise UsageError(
                f"{self._per_day} images were learned today, which is the most of a day; has the line changed? Then "
                "train a new kit, or pass --per-day"
            )

    def _with(self, model: Precision, *candidates: Addition) -> Detector:
        station = self._additions(model)
        return self._detectors[model].with_additions(replace(station, learned=[*station.learned, *candidates]))

    def _alone(self, model: Precision) -> Detector:
        """The kit without additions, with the limits that count."""
        limits = self._additions(model).calibration
        return self._detectors[model].with_calibration(limits) if limits else self._detectors[model]

    def _additions(self, model: Precision) -> Additions:
        return self.file.additions(model, self._detectors[model].manifest.models[model])

    def _rows(self, model: Precision, image: np.ndarray) -> LearnedRows:
        """What a model learns: of the kit alone, so that undoing one image leaves the rows of the others complete."""
        detector = self._detectors[model]
        output, bank = detector.run(image), detector.manifest.models[model].banks.patches
        if output.patch_embeddings is None or output.patch_distances is None or bank is None:
            return LearnedRows(output.embedding, np.empty((0, 1), np.float32))
        assert bank.median_distance is not None, "written together with patch_embeddings"
        patches = output.patch_embeddings.reshape(-1, bank.dim)
        chosen = covering(patches, output.patch_distances.ravel(), bank.median_distance)
        return LearnedRows(output.embedding, patches[chosen])

    def close(self) -> None:
        """Close the additions file."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
