"""The whole of `msc-edge calibrate`, for Python users: new scores, new limits, the old ones kept in the history.

Models and memory banks stay as they are, byte by byte. The scores of the new images replace the calibration scores (see
msc_edge.calibration). Each model of the kit has its own limits. With what the station has learned, the kit as a whole
stays as it is: the limits are station limits, in the additions file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

import numpy as np

from msc_edge.calibration import Calibration, Limit, Rates, images_needed
from msc_edge.describe import describe_groups
from msc_edge.drift import DriftCall, DriftTest, independent
from msc_edge.errors import SourceError, UsageError
from msc_edge.intervals import ROUNDING
from msc_edge.kit.manifest import Precision
from msc_edge.kit.model_entry import HISTORY_LENGTH, CalibrationInfo, EarlierCalibration, RegionCalibration
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import rewrite, rewrite_target
from msc_edge.progress import Report, silent
from msc_edge.runtime.additions_database import additions_path
from msc_edge.runtime.additions_file import AdditionsFile
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.kept_images import Change, learned_digests
from msc_edge.runtime.station import user_name
from msc_edge.runtime.station_limits import StationLimits
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
    call: DriftCall | None
    """A drift among the new images, in the order of their paths, as a stream calls it; see `DriftTest`."""
    tested: int
    """Number of images in that test: one of each group."""


@dataclass(frozen=True)
class Recalibration:
    """What `calibrate` computed."""

    images: ScoredNormalImages
    """Scored by the reference model."""
    limits: dict[Precision, NewLimits]
    """By model of the kit."""
    written: Path | None
    """The kit with the new limits, or the additions file; None where nothing was written."""
    learned: int | None = None
    """Number of learned images that the limits were computed with; None: of the kit alone."""


def calibrate(
    kit: Path,
    normal: Path,
    *,
    out: Path | None = None,
    in_place: bool = False,
    warn_rate: float | None = None,
    reject_rate: float | None = None,
    region_rate: float | None = None,
    learned: bool = False,
    reason: str = REASON,
    threads: int | None = None,
    report: Report = silent,
) -> Recalibration:
    """Compute the limits of a kit from the normal images below `normal`; write the kit `out`, or replace `kit`.

    With neither `out` nor `in_place` nothing is written. `learned`: compute them with what this station has learned,
    and with `in_place` store them as station limits, see `StationLimits`; images that were learned are left out. The
    target false-alarm rates are in (0, 1), by default those of the limits so far; `region_rate`: the share of normal
    images with any region of the anomaly map. Raises KitError, UsageError for rates and places that cannot be used,
    SourceError when there are too few images for the reject rate or for a `region_rate` that is given.
    """
    target = _target(kit, out, in_place=in_place, learned=learned)
    paths = find_normal_images(normal)
    with Kit.open(kit) as opened:
        if in_place and not learned:
            _refuse_to_forget(opened)
        manifest = opened.manifest
        detectors: dict[Precision, Detector] = {
            precision: Detector.of(opened, threads=1, precision=precision, backend="onnxruntime", learned=learned)
            for precision in manifest.precisions
        }
        old = {
            precision: detector.additions.calibration or opened.model(precision).calibration
            for precision, detector in detectors.items()
        }
        additions = detectors[manifest.precisions[0]].additions
        if learned and not additions:
            raise UsageError(
                f"--learned: nothing that this station has learned for {kit} counts; calibrate without this option"
            )
        if len({tuple(detector.additions.names) for detector in detectors.values()}) > 1:
            raise UsageError(f"--learned: something was learned for {kit}, or undone, in this moment; run this again")
        rates = _rates(old[manifest.precisions[0]], warn=warn_rate, reject=reject_rate, region=region_rate)
        required = {"--reject-rate": rates.reject} | ({} if region_rate is None else {"--region-rate": region_rate})
        _require(len(paths), required, f"{many(len(paths), 'image file')} found")
        scored: dict[Precision, ScoredNormalImages] = {
            precision: score_normal_images(detector, paths, threads=threads, report=report)
            for precision, detector in detectors.items()
        }
        images = scored[manifest.precisions[0]]
        left = f"{len(images.scored)} of {len(paths)} images left"
        _require(len(images.scored), required, f"{left} ({images.left_out})")
        limits: dict[Precision, NewLimits] = {
            precision: _new_limits(
                old[precision],
                each,
                rates,
                reason=reason,
                kit_created=manifest.provenance.created,
            )
            for precision, each in scored.items()
        }
        for each in limits.values():
            calibration = each.after.calibration
            _require(calibration.independent, required, f"{left}{describe_groups(calibration)}")
        after: dict[Precision, CalibrationInfo] = {precision: each.after for precision, each in limits.items()}
        if learned and in_place:
            digests = sorted(each.digest for each in additions.learned)
            with AdditionsFile.open(kit, opened.identity) as file:
                file.set_limits(StationLimits(Change.now(user_name(), reason), digests, after))
                target = file.path
        elif target is not None:
            rewrite(opened, manifest.with_calibrations(after), target)
    return Recalibration(images, limits, target, len(additions) if learned else None)


def _target(kit: Path, out: Path | None, *, in_place: bool, learned: bool) -> Path | None:
    """The kit to write. UsageError where it cannot be written."""
    if not learned:
        return rewrite_target(kit, out, in_place=in_place)
    if out is not None:
        raise UsageError(
            "--learned: these limits belong to this station, and --out writes a kit without what it has learned; pass "
            "--in-place, and msc-edge export --from-station for a kit with both"
        )
    return None


def _refuse_to_forget(kit: Kit) -> None:
    """UsageError where the station has learned something for a kit that is to be replaced: it would count no more."""
    if not additions_path(kit.path, kit.identity).exists():
        return
    with AdditionsFile.open(kit.path, kit.identity) as file:
        count = len(learned_digests(file.images()))
    if count:
        raise UsageError(
            f"--in-place {kit.path}: this station has learned {many(count, 'image')} for it, and a kit with other "
            "limits is another kit, for which nothing was learned; pass --learned, or write another kit with --out"
        )


def _rates(old: CalibrationInfo, *, warn: float | None, reject: float | None, region: float | None) -> Rates:
    """The target false-alarm rates, by default the old ones. UsageError for impossible rates."""
    warn, reject = old.warn_rate if warn is None else warn, old.reject_rate if reject is None else reject
    old.calibration.limits(warn_rate=warn, reject_rate=reject)
    if old.regions is None:
        if region is not None:
            raise UsageError("--region-rate: the kit compares whole images only and has no heatmap; omit the option")
        return Rates(warn, reject, None)
    region = old.regions.rate if region is None else region
    old.regions.calibration.limit(region)
    return Rates(warn, reject, region)


def _new_limits(
    old: CalibrationInfo, images: ScoredNormalImages, rates: Rates, *, reason: str, kit_created: str
) -> NewLimits:
    scores = images.scores
    tested = [scores[place] for place in sorted(np.unique(images.groups, return_index=True)[1].tolist())]
    after = recalibrated(
        old, scores, images.patch_scores, images.groups, rates=rates, reason=reason, kit_created=kit_created
    )
    return NewLimits(
        before=after.history[-1],
        after=after,
        warn=_drift(old.limits.warn, old.calibration, scores),
        reject=_drift(old.limits.reject, old.calibration, scores),
        regions=old.regions and _drift(old.regions.limit, old.regions.calibration, images.patch_scores),
        call=_called(old, tested),
        tested=len(tested),
    )


def recalibrated(
    old: CalibrationInfo,
    scores: list[float],
    patch_scores: list[float],
    groups: list[int] | None = None,
    *,
    rates: Rates,
    reason: str = REASON,
    kit_created: str,
) -> CalibrationInfo:
    """A calibration with other scores, in any order; the `old` one becomes the last entry of its history.

    `patch_scores`, in the same order, set the limit of the anomaly map; empty where there is none. `groups`: the group
    of each image; None: all are independent. `kit_created` is the date of the first calibration, which has none of its
    own.
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
        warn_rate=rates.warn,
        reject_rate=rates.reject,
        limits=calibration.limits(warn_rate=rates.warn, reject_rate=rates.reject),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
        history=[*old.history, earlier][-HISTORY_LENGTH:],
        regions=None
        if rates.region is None
        else RegionCalibration.of(Calibration(patch_scores, groups), rate=rates.region),
    )


def _require(usable: float, rates: Mapping[str, float], found: str) -> None:
    """SourceError where `usable` independent images are too few for a target false-alarm rate, by its option."""
    option, rate = min(rates.items(), key=itemgetter(1))
    if usable >= (needed := images_needed(rate)):
        return
    larger = f", or pass {option} {_rounded_up(1 / (usable + 1))} or more" if usable else ""
    raise SourceError(
        f"--normal: {found}, and a target false-alarm rate of {percent(rate)} needs at least {needed}; "
        f"add normal images from the line{larger}"
    )


def _rounded_up(rate: float) -> str:
    """A rate that is not below this one, to three digits."""
    step = 10 ** (math.floor(math.log10(rate)) - 2)
    return f"{math.ceil(rate / step * (1 - ROUNDING)) * step:.3g}"


def _called(old: CalibrationInfo, scores: list[float]) -> DriftCall | None:
    """The first call of a drift test over the scores."""
    test = DriftTest(independent(old.calibration), old.limits.reject.score)
    return next((call for score in scores if (call := test.add(score))), None)


def _drift(limit: Limit, calibration: Calibration, scores: list[float]) -> Drift:
    interval = calibration.alarm_interval(limit, len(scores))
    assert interval is not None, "the limits of a kit follow from its scores"
    return Drift(
        limit=limit,
        flagged=sum(score > limit.score for score in scores),
        images=len(scores),
        interval=interval,
    )
