"""The whole of `msc-edge calibrate`, for Python users: new scores, new limits, the old ones kept in the history.

Models and memory banks stay as they are, byte by byte. The scores of the new images replace the calibration scores (see
msc_edge.calibration). Each model of the kit has its own limits.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from msc_edge.calibration import Calibration, Limit, images_needed
from msc_edge.describe import describe_groups
from msc_edge.errors import SourceError
from msc_edge.intervals import ROUNDING
from msc_edge.kit.manifest import Precision
from msc_edge.kit.model_entry import HISTORY_LENGTH, CalibrationInfo, EarlierCalibration, RegionCalibration
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import rewrite, rewrite_target
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.calibrate.normal_images import (
    ScoredNormalImages,
    find_normal_images,
    score_normal_images,
)
from msc_edge.text import many, percent

REASON = "new normal images"


@dataclass(frozen=True)
class Drift:
    """The new images at one of the old limits: whether the line has changed since the last calibration."""

    limit: Limit
    flagged: int
    images: int
    interval: tuple[int, int]
    """90 % interval of `flagged` if nothing has changed."""


@dataclass(frozen=True)
class NewLimits:
    """The new calibration of one model, and the old one."""

    before: EarlierCalibration
    after: CalibrationInfo
    warn: Drift
    reject: Drift
    regions: Drift | None
    """The limit of the anomaly map; None for a kit that has none."""


@dataclass(frozen=True)
class Recalibration:
    """What `calibrate` computed."""

    images: ScoredNormalImages
    """Scored by the reference model."""
    limits: dict[Precision, NewLimits]
    """By model of the kit."""
    written: Path | None
    """The kit with the new limits; None where nothing was written."""


def calibrate(
    kit: Path,
    normal: Path,
    *,
    out: Path | None = None,
    in_place: bool = False,
    warn_rate: float | None = None,
    reject_rate: float | None = None,
    reason: str = REASON,
    threads: int | None = None,
    report: Report = silent,
) -> Recalibration:
    """Compute the limits of a kit from the normal images below `normal`; write the kit `out`, or replace `kit`.

    With neither `out` nor `in_place` nothing is written. The target false-alarm rates are in (0, 1), by default the
    kit's own. Raises KitError, UsageError for rates and places that cannot be used, SourceError when there are too few
    images for the reject rate.
    """
    target = rewrite_target(kit, out, in_place=in_place)
    paths = find_normal_images(normal)
    with Kit.open(kit) as opened:
        manifest = opened.manifest
        reference = manifest.reference_model.calibration
        warn_rate = reference.warn_rate if warn_rate is None else warn_rate
        reject_rate = reference.reject_rate if reject_rate is None else reject_rate
        # Refuses impossible rates before the work.
        reference.calibration.limits(warn_rate=warn_rate, reject_rate=reject_rate)
        _require(len(paths), reject_rate, f"{many(len(paths), 'image file')} found")
        scored: dict[Precision, ScoredNormalImages] = {
            precision: score_normal_images(
                Detector.of(opened, threads=1, precision=precision, backend="onnxruntime"),
                paths,
                threads=threads,
                report=report,
            )
            for precision in manifest.precisions
        }
        images = scored[manifest.precisions[0]]
        left = f"{len(images.scored)} of {len(paths)} images left"
        _require(len(images.scored), reject_rate, f"{left} ({images.left_out})")
        limits: dict[Precision, NewLimits] = {
            precision: _new_limits(
                opened.model(precision).calibration,
                each,
                warn_rate=warn_rate,
                reject_rate=reject_rate,
                reason=reason,
                kit_created=manifest.provenance.created,
            )
            for precision, each in scored.items()
        }
        for each in limits.values():
            calibration = each.after.calibration
            _require(calibration.independent, reject_rate, f"{left}{describe_groups(calibration)}")
        if target is not None:
            after: dict[Precision, CalibrationInfo] = {precision: each.after for precision, each in limits.items()}
            rewrite(opened, manifest.with_calibrations(after), target)
    return Recalibration(images=images, limits=limits, written=target)


def _new_limits(
    old: CalibrationInfo,
    images: ScoredNormalImages,
    *,
    warn_rate: float,
    reject_rate: float,
    reason: str,
    kit_created: str,
) -> NewLimits:
    scores = images.scores
    after = recalibrated(
        old,
        scores,
        images.patch_scores,
        images.groups,
        warn_rate=warn_rate,
        reject_rate=reject_rate,
        reason=reason,
        kit_created=kit_created,
    )
    return NewLimits(
        before=after.history[-1],
        after=after,
        warn=_drift(old.limits.warn, old.calibration, scores),
        reject=_drift(old.limits.reject, old.calibration, scores),
        regions=old.regions and _drift(old.regions.limit, old.regions.calibration, images.patch_scores),
    )


def recalibrated(
    old: CalibrationInfo,
    scores: list[float],
    patch_scores: list[float],
    groups: list[int] | None = None,
    *,
    warn_rate: float,
    reject_rate: float,
    reason: str = REASON,
    kit_created: str,
) -> CalibrationInfo:
    """A calibration with other scores, in any order; the `old` one becomes the last entry of its history.

    `patch_scores`, in the same order, set the limit of the anomaly map, at its old rate; empty where there is none.
    `groups`: the group of each image; None: all are independent. `kit_created` is the date of the first calibration,
    which has none of its own.
    """
    calibration = Calibration(scores, groups)
    earlier = EarlierCalibration(
        created=old.created or kit_created,
        reason=old.reason,
        count=len(old.scores),
        quantiles=tuple(np.quantile(old.scores, (0, 0.25, 0.5, 0.75, 1)).tolist()),
        warn_rate=old.warn_rate,
        reject_rate=old.reject_rate,
        limits=old.limits,
        region_limit=old.regions and old.regions.limit,
    )
    return CalibrationInfo(
        scores=calibration.scores.tolist(),
        groups=calibration.stored_groups,
        warn_rate=warn_rate,
        reject_rate=reject_rate,
        limits=calibration.limits(warn_rate=warn_rate, reject_rate=reject_rate),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
        history=[*old.history, earlier][-HISTORY_LENGTH:],
        regions=old.regions and RegionCalibration.of(Calibration(patch_scores, groups), rate=old.regions.rate),
    )


def _require(usable: float, rate: float, found: str) -> None:
    """SourceError where `usable` independent images are too few for a target false-alarm rate."""
    if usable >= (needed := images_needed(rate)):
        return
    larger = f", or pass --reject-rate {_rounded_up(1 / (usable + 1))} or more" if usable else ""
    raise SourceError(
        f"--normal: {found}, and a target false-alarm rate of {percent(rate)} needs at least {needed}; "
        f"add normal images from the line{larger}"
    )


def _rounded_up(rate: float) -> str:
    """A rate that is not below this one, to three digits."""
    step = 10 ** (math.floor(math.log10(rate)) - 2)
    return f"{math.ceil(rate / step * (1 - ROUNDING)) * step:.3g}"


def _drift(limit: Limit, calibration: Calibration, scores: list[float]) -> Drift:
    interval = calibration.alarm_interval(limit, len(scores))
    assert interval is not None, "the limits of a kit follow from its scores"
    return Drift(
        limit=limit,
        flagged=sum(score > limit.score for score in scores),
        images=len(scores),
        interval=interval,
    )
