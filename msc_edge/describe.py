"""Limits, and which model scores, in words: for terminals, logs and reports."""

from collections.abc import Iterator

from msc_edge.calibration import Calibration, Limit, Limits, Verdict, images_needed
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import RegionCalibration
from msc_edge.kit.quantization import MAX_LOSS, MIN_HELD_OUT
from msc_edge.scoring import ScoreKind
from msc_edge.text import many, percent

SCORE_KINDS: dict[ScoreKind, str] = {
    "image": "the image score: the image as a whole",
    "patch": "the patch score: the most anomalous part of the image",
    "both": "the larger of image score and patch score, each in standard deviations from the mean of normal images",
}


def describe_limits(
    limits: Limits, calibration: Calibration, regions: RegionCalibration | None = None
) -> Iterator[tuple[str, str]]:
    """Describe the limits and their false-alarm rates, as pairs of name and text.

    The names are `warn` and `reject`. `caution` follows a limit whose expected rate is above its target rate. `groups`
    comes before them if several images show the same part, and `regions`, the limit of the anomaly map, after them if
    it is given.
    """
    used = (("reject", limits.reject),)
    if limits.warn.score < limits.reject.score:
        used = (("warn", limits.warn), *used)
    else:
        yield "warn", "not used: the warn limit is equal to the reject limit"
    n = calibration.scores.size
    counted = describe_groups(calibration)
    if counted:
        yield "groups", f"{many(n, 'calibration image')}{counted}"
    for name, limit in used:
        yield name, _describe(limit, calibration)
        if limit.target_rate and limit.expected_rate and not limit.meets_target:
            yield (
                "caution",
                f"{name}: the expected false-alarm rate is {percent(limit.expected_rate)}, above the target of "
                f"{percent(limit.target_rate)}: that target needs at least {images_needed(limit.target_rate)} "
                f"{'independent ' if counted else ''}calibration images, and the kit has {n}{counted}",
            )
    if regions is not None:
        yield "regions", describe_regions(regions.limit, regions.calibration)


def describe_groups(calibration: Calibration) -> str:
    """How many independent images the calibration images count as; empty if all are independent."""
    groups = calibration.stored_groups
    if groups is None:
        return ""
    return (
        f", which show {many(len(set(groups)), 'part')} and count as {calibration.independent:.0f} independent images"
    )


def is_least_p_value(p_value: float, calibration: Calibration) -> bool:
    """Whether no calibration image scored as high; `p_value` may have the six decimals of a row."""
    return p_value <= calibration.least_p_value + 1e-6


def describe_p_value(p_value: float, calibration: Calibration) -> str:
    """A p-value such as `0.0327`; the least one, which is only an upper bound, as `at most 1 in 153`."""
    if not is_least_p_value(p_value, calibration):
        return f"{p_value:.4f}"
    return f"at most 1 in {calibration.independent + 1:.0f}"


def describe_least_p_value(calibration: Calibration) -> str:
    """What the least p-value means: `at most 1 in 153: all 152 calibration images scored lower`."""
    count = calibration.scores.size
    images = f"all {count} calibration images" if count > 1 else "the only calibration image"
    return f"{describe_p_value(calibration.least_p_value, calibration)}: {images} scored lower"


def describe_regions(limit: Limit, calibration: Calibration) -> str:
    """Describe the limit of the anomaly map; `calibration` holds the patch scores."""
    assert limit.expected_rate is not None, "the limit of the map follows from calibration images"
    assert limit.target_rate is not None
    rates = _rates(limit.target_rate, limit.expected_rate, describe_interval(calibration, limit))
    return f"map above {limit.score:.6f}; share of normal images with any region: {rates}"


def disagree(*, flagged: bool, regions: int | None) -> bool:
    """Whether an image is flagged without a region, or has regions and is not flagged. None: there is no heatmap."""
    return regions is not None and flagged != (regions > 0)


def describe_disagreement(verdict: Verdict, *, regions: int | None) -> str:
    """Why a flagged image has no region, or a normal one has some: one sentence; empty where there is nothing to say.

    `regions`: their number; None for a kit that compares whole images only.
    """
    if not disagree(flagged=verdict != "normal", regions=regions):
        return ""
    flagged = {"normal": "Normal", "warn": "Warning", "reject": "Rejected"}[verdict]
    found = "a" if regions else "no"
    return f"{flagged}, although the heatmap has {found} region above its limit: the score decides, with its own limit."


def describe_default_model(manifest: Manifest) -> str:
    """Say in one sentence which model scores by default, and why."""
    default, int8 = manifest.default_precision, manifest.models.get("int8")
    if len(manifest.models) == 1:
        return f"{default} scores: the kit has no other model"
    if manifest.default_model == "auto":
        return f"{default} scores: the msc-edge that made this kit did not say which model does"
    loss = int8.agreement.loss if int8 and int8.agreement else None
    if loss is None:
        reason = f"what int8 loses was not measured, which needs at least {MIN_HELD_OUT} images held out of training"
        return f"{default} scores: {'requested at export' if default == 'int8' else reason}"
    figures = f"AUROC {loss.auroc:.4f} (fp32 {loss.auroc_fp32:.4f})"
    if loss.au_pro is not None:
        figures += f" and AU-PRO {loss.au_pro:.4f} (fp32 {loss.au_pro_fp32:.4f})"
    lost = f"less than {MAX_LOSS} lower" if loss.is_small else f"{MAX_LOSS} or more is lost"
    requested = "requested at export; " if default == "int8" and not loss.is_small else ""
    return f"{default} scores: {requested}on faint synthetic anomalies int8 has {figures}, {lost}"


def describe_interval(calibration: Calibration, limit: Limit) -> str:
    """The 90 % interval of the false-alarm rate of a limit, such as `0.2 to 1.4 %`; by hand: `0 to 100 %`."""
    low, high = calibration.interval(limit) or (0.0, 1.0)
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def _describe(limit: Limit, calibration: Calibration) -> str:
    above = f"score above {limit.score:.6f}"
    if limit.expected_rate is None or limit.target_rate is None:
        exceeding = int((calibration.scores > limit.score).sum())
        return f"{above}, set by hand; {exceeding} of {many(calibration.scores.size, 'calibration image')} exceed it"
    rates = _rates(limit.target_rate, limit.expected_rate, describe_interval(calibration, limit))
    return f"{above}; false-alarm rate: {rates}"


def _rates(target: float, expected: float, interval: str) -> str:
    return f"target {percent(target)}, expected {percent(expected)}, 90 % interval {interval}"
