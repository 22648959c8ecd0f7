"""The whole of `msc-edge calibrate`, for Python users: fresh scores, new limits, and the old ones kept in the history.

Models and banks stay as they are, byte by byte. The scores of the fresh images take the place of those that the
limits came from, under the same theory: see msc_edge.calibration. Each model of the kit has limits of its own.
"""

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from msc_edge.calibration import Calibration, Limit, alarm_count_interval, images_needed
from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.files import folder_written_whole, sha256_of
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import HISTORY_KEPT, CalibrationInfo, EarlierCalibration, Manifest, Precision
from msc_edge.kit.opening import Kit, refuse_zip, seal
from msc_edge.progress import Report, silent
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.calibrate.normal_images import NormalImageScores, find_normal_images, score_normal_images
from msc_edge.text import many, percent

WHY = "fresh good images"


@dataclass(frozen=True)
class Drift:
    """What one of the old limits would have done to the fresh images: the test of whether the line has changed."""

    limit: Limit
    flagged: int
    images: int
    band: tuple[int, int] | None
    """Where 90 % of such counts lie when the line is as it was; None for a limit that promises nothing."""


@dataclass(frozen=True)
class NewLimits:
    """What `calibrate` found with one of the kit's models, and the calibration that follows from it."""

    before: EarlierCalibration
    after: CalibrationInfo
    warn: Drift
    reject: Drift


@dataclass(frozen=True)
class Recalibration:
    """What `calibrate` found."""

    fresh: NormalImageScores
    """By the float model."""
    limits: dict[Precision, NewLimits]
    """Of each model that the kit has."""
    written: Path | None
    """The kit that has the new limits; None when none was asked for."""


def calibrate(
    kit: Path,
    normal: Path,
    *,
    out: Path | None = None,
    in_place: bool = False,
    warn_rate: float | None = None,
    reject_rate: float | None = None,
    why: str = WHY,
    threads: int | None = None,
    report: Report = silent,
) -> Recalibration:
    """Set the limits of a kit by the good images below `normal`, and write the kit `out`, or `kit` itself anew.

    With neither, nothing is written. The rates are in (0, 1); without them the kit's own. Raises KitError, UsageError
    for rates and places that cannot be, SourceError when there are too few images for the rate of `reject`.
    """
    target = _target(kit, out, in_place=in_place)
    paths = find_normal_images(normal)
    with Kit.open(kit) as opened:
        manifest = opened.manifest
        warn_rate = manifest.calibration.warn_rate if warn_rate is None else warn_rate
        reject_rate = manifest.calibration.reject_rate if reject_rate is None else reject_rate
        # Refuses rates that mean nothing, before the work.
        manifest.calibration.calibrated.limits(warn_rate=warn_rate, reject_rate=reject_rate)
        _require(len(paths), reject_rate, f"{many(len(paths), 'image file')} found")
        fresh: dict[Precision, NormalImageScores] = {
            precision: score_normal_images(
                Detector.of(opened, threads=1, precision=precision, backend="onnxruntime"),
                paths,
                threads=threads,
                report=report,
            )
            for precision in manifest.precisions
        }
        scored, left_out = fresh["fp32"].scored, fresh["fp32"].left_out
        _require(len(scored), reject_rate, f"{len(scored)} of {len(paths)} images left ({left_out})")
        limits: dict[Precision, NewLimits] = {
            precision: _new_limits(
                manifest.calibration_of(precision),
                manifest,
                each,
                warn_rate=warn_rate,
                reject_rate=reject_rate,
                why=why,
            )
            for precision, each in fresh.items()
        }
        if target is not None:
            with _place(target, in_place=in_place) as folder:
                _write(opened, manifest.recalibrated({name: each.after for name, each in limits.items()}), folder)
                if in_place:
                    _refuse_changed(opened)
    return Recalibration(fresh=fresh["fp32"], limits=limits, written=target)


def _new_limits(
    old: CalibrationInfo,
    manifest: Manifest,
    fresh: NormalImageScores,
    *,
    warn_rate: float,
    reject_rate: float,
    why: str,
) -> NewLimits:
    scores = [row.score for row in fresh.scored if row.score is not None]
    after = recalibrated(
        old, scores, warn_rate=warn_rate, reject_rate=reject_rate, why=why, made=manifest.provenance.created
    )
    return NewLimits(
        before=after.history[-1],
        after=after,
        warn=_drift(old.limits.warn, old.calibrated, scores),
        reject=_drift(old.limits.reject, old.calibrated, scores),
    )


def recalibrated(
    old: CalibrationInfo, scores: list[float], *, warn_rate: float, reject_rate: float, why: str = WHY, made: str
) -> CalibrationInfo:
    """A calibration with other scores, in any order; the `old` one becomes the last of its history.

    `made` is when the kit was, for a first calibration has no date of its own.
    """
    calibration = Calibration(scores)
    earlier = EarlierCalibration(
        created=old.created or made,
        why=old.why,
        count=len(old.scores),
        quantiles=tuple(np.quantile(old.scores, (0, 0.25, 0.5, 0.75, 1)).tolist()),
        warn_rate=old.warn_rate,
        reject_rate=old.reject_rate,
        limits=old.limits,
    )
    return CalibrationInfo(
        scores=calibration.scores.tolist(),
        warn_rate=warn_rate,
        reject_rate=reject_rate,
        limits=calibration.limits(warn_rate=warn_rate, reject_rate=reject_rate),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
        history=[*old.history, earlier][-HISTORY_KEPT:],
    )


def _target(kit: Path, out: Path | None, *, in_place: bool) -> Path | None:
    """Where to write, checked before the work."""
    if out is not None and in_place:
        raise UsageError("--out and --in-place contradict each other; give one")
    if in_place:
        if kit.is_file():
            raise UsageError(f"{kit}: a kit in a .zip cannot be replaced in place; pass --out NEWKIT, and zip that")
        return kit.resolve()  # not a link to it
    if out is None:
        return None
    refuse_zip(out)
    if out.resolve() == kit.resolve():
        raise UsageError(f"--out {out}: is the kit itself; pass --in-place to replace it")
    if out.resolve().is_relative_to(kit.resolve()):
        raise UsageError(f"--out {out}: lies within the kit, which would not be a kit any more; choose another place")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"--out {out}: exists already; choose another name, or pass --in-place to change {kit} itself")
    return out


def _refuse_changed(opened: Kit) -> None:
    """Another calibration in the meantime would be lost, with its history."""
    if sha256_of(opened.root / MANIFEST) != opened.sha256:
        raise UsageError(f"{opened.name}: was changed while its new limits were measured; calibrate again")


def _place(target: Path, *, in_place: bool) -> AbstractContextManager[Path]:
    return folder_written_whole(target, replace=in_place)


def _require(usable: int, rate: float, what: str) -> None:
    """SourceError where `usable` images, `what` in words, cannot promise the rate."""
    if usable >= (needed := images_needed(rate)):
        return
    larger = f", or a larger --reject-rate: these can promise {percent(1 / (usable + 1))}" if usable else ""
    raise SourceError(
        f"--normal: {what}, and a false-alarm rate of {percent(rate)} takes at least {needed}; "
        f"give more images fresh from the line{larger}"
    )


def _drift(limit: Limit, calibration: Calibration, scores: list[float]) -> Drift:
    band = None
    if limit.expected_rate is not None:
        band = alarm_count_interval(calibration.flagged(limit.expected_rate), calibration.scores.size, len(scores))
    return Drift(limit=limit, flagged=sum(score > limit.score for score in scores), images=len(scores), band=band)


def _write(kit: Kit, manifest: Manifest, folder: Path) -> None:
    for name in manifest.files:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(kit.path(name), folder / name)
    if seal(folder, manifest).files != manifest.files:  # it was whole when it was opened
        raise KitError(f"{kit.name}: its files have changed while they were copied; try again, and check the disk")
