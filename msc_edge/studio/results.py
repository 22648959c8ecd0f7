"""What a finished training shows: the scores of its images, and the verdicts at any limit."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from msc_edge.calibration import Calibration, Limit, Limits, Verdict
from msc_edge.errors import KitError
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import Model, RegionCalibration
from msc_edge.kit.opening import Kit
from msc_edge.runtime.tools.evaluate.evaluation import AtLimit, Evaluation, at_limit
from msc_edge.runtime.tools.evaluate.labelled import GOOD
from msc_edge.runtime.tools.evaluate.run import JSON, SCORES
from msc_edge.scoring import Scoring
from msc_edge.studio.training import LABELS, Training
from msc_edge.text import csv_text

_NEAR = 8  # images shown beside a limit


@dataclass(frozen=True)
class ScoredImage:
    """A labelled image with its score."""

    index: int
    """Its place in the list of the scores."""
    name: str
    path: Path
    label: str
    score: float
    p_value: float
    regions: int | None
    """Regions of its heatmap; None where the kit has no heatmaps."""

    @property
    def is_anomalous(self) -> bool:
        """Whether it shows a defect."""
        return self.label != GOOD


@dataclass(frozen=True)
class Results:
    """The results of a finished training."""

    kit: Path
    manifest: Manifest
    images: tuple[ScoredImage, ...]
    """Labelled images that could be read, by name; empty where none were chosen."""
    evaluation: Evaluation | None

    @classmethod
    def of(cls, training: Training) -> "Results | None":
        """The results; None before the kit is exported. KitError if the kit or the evaluation is damaged."""
        if training.kit is None:
            return None
        labels = training.folder / LABELS
        return _read(training.kit, training.evaluation, labels, (*_stamps(training.kit), *_stamps(labels)))

    @property
    def model(self) -> Model:
        """The model that scores."""
        return self.manifest.models[self.manifest.default_precision]

    @property
    def calibration(self) -> Calibration:
        """Its calibration."""
        return self.model.calibration.calibration

    @property
    def regions(self) -> RegionCalibration | None:
        """The calibration of its heatmap; None for a kit that has none."""
        return self.model.calibration.regions

    @property
    def scoring(self) -> Scoring:
        """What its score is made of."""
        return self.model.scoring

    @property
    def limits(self) -> Limits:
        """Its limits."""
        return self.model.calibration.limits

    @cached_property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest score of held-out and labelled images and limits."""
        scores = [*self.calibration.scores, *(image.score for image in self.images)]
        scores += [self.limits.warn.score, self.limits.reject.score]
        return float(min(scores)), float(max(scores))

    def scores(self, *, anomalous: bool) -> np.ndarray:
        """The scores of labelled images, float64 (n,)."""
        return np.array([image.score for image in self.images if image.is_anomalous == anomalous])

    def rate_of(self, score: float) -> float:
        """The target false-alarm rate whose limit is at or just below a score: the share of scores that may exceed it.

        In (0, 1): the p-value of the next larger score.
        """
        return self.calibration.p_value(math.nextafter(score, math.inf))

    @property
    def highest_limit(self) -> float:
        """The highest limit that a target rate gives: the largest score of the held-out images."""
        return float(self.calibration.scores[-1])

    def at(self, score: float) -> AtLimit | None:
        """The verdicts on the labelled images at any limit; None without labelled images."""
        if not self.images:
            return None
        limit = Limit(score=score, target_rate=None, expected_rate=None)
        normal, anomalous = (self.scores(anomalous=each) for each in (False, True))
        return at_limit(limit, self.calibration, normal, anomalous)

    def types_at(self, score: float) -> list[tuple[str, int, int]]:
        """Each defect type with its images, and how many of them are above a limit."""
        labels = sorted({image.label for image in self.images if image.is_anomalous})
        own = {label: [image.score for image in self.images if image.label == label] for label in labels}
        return [(label, len(scores), sum(each > score for each in scores)) for label, scores in own.items()]

    def near(self, score: float) -> list[ScoredImage]:
        """The labelled images whose scores are nearest to a limit, by score: those that a small change concerns."""
        nearest = sorted(self.images, key=lambda image: abs(image.score - score))[:_NEAR]
        return sorted(nearest, key=lambda image: image.score)

    def missed(self, score: float) -> list[ScoredImage]:
        """Anomalous images at or below a limit, the smallest score first."""
        return self._sorted(anomalous=True, chosen=lambda image: image.score <= score)

    def false_alarms(self, score: float) -> list[ScoredImage]:
        """Normal images above a limit, the largest score first."""
        return self._sorted(anomalous=False, chosen=lambda image: image.score > score)[::-1]

    def warned(self, score: float) -> list[ScoredImage]:
        """Normal images that are not above a reject limit, but above the warn limit: false alarms, warning only."""
        return self._sorted(anomalous=False, chosen=lambda image: self.verdict(image, score) == "warn")[::-1]

    def verdict(self, image: ScoredImage, score: float) -> Verdict:
        """The verdict on an image with another reject limit; the warn limit is that of the kit."""
        if image.score > score:
            return "reject"
        return "warn" if image.score > self.limits.warn.score else "normal"

    def found(self, score: float) -> list[ScoredImage]:
        """Anomalous images above a limit, the smallest score first."""
        return self._sorted(anomalous=True, chosen=lambda image: image.score > score)

    def _sorted(self, *, anomalous: bool, chosen: Callable[[ScoredImage], bool]) -> list[ScoredImage]:
        found = [image for image in self.images if image.is_anomalous == anomalous and chosen(image)]
        return sorted(found, key=lambda image: image.score)


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of a file, or of all that is directly in a folder: another stamp is another content.

    Of the thumbnails of a kit only their folder: there may be thousands, and each image of a page asks. KitError for
    what cannot be listed.
    """
    try:
        found = list(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
        return tuple((each.name, (stat := each.stat()).st_mtime_ns, stat.st_size) for each in sorted(found))
    except OSError as error:
        raise KitError(
            f"{path}: cannot be read: {error.strerror}; check the permissions, or export the kit again"
        ) from error


@lru_cache(maxsize=16)
def _read(
    kit: Path,
    evaluation: Path | None,
    labels: Path,
    stamps: tuple[tuple[str, int, int], ...],  # noqa: ARG001 (another stamp is another content)
) -> Results:
    with Kit.open(kit) as opened:
        manifest = opened.manifest
    if evaluation is None or not labels.is_file():
        return Results(kit, manifest, (), None)
    try:
        known = json.loads(labels.read_text(encoding="utf-8"))
        with (evaluation / SCORES).open(newline="", encoding="utf-8") as file:
            rows = [(csv_text(row["path"]), row) for row in csv.DictReader(file) if row["score"]]
        images = tuple(
            ScoredImage(
                index,
                name,
                Path(known[name]["path"]),
                known[name]["label"],
                float(row["score"]),
                float(row["p_value"]),
                len(json.loads(row["regions"])) if row["patch_score"] else None,
            )
            for index, (name, row) in enumerate(rows)
            if name in known
        )
        return Results(
            kit, manifest, images, Evaluation.model_validate_json((evaluation / JSON).read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, KeyError) as error:
        raise KitError(f"{evaluation}: cannot be read ({error}); export the kit again") from error
