"""A reject limit in place of that of the kit: for another false-alarm rate, or a threshold that is set by hand."""

import logging
import math

from msc_edge.arguments import number_argument
from msc_edge.calibration import Calibration, Limit, Limits
from msc_edge.errors import UsageError
from msc_edge.scoring import Scoring

_LOG = logging.getLogger("msc_edge")
_FAR = 10  # times the range of the calibration scores: few anomalies have such a score


def reject_limit(
    scoring: Scoring, calibration: Calibration, own: Limit, false_alarm_rate: float | None, threshold: float | None
) -> Limit | None:
    """The limit for a target false-alarm rate in (0, 1), or at a score; None where neither is given.

    `own`: the reject limit so far. UsageError for both at once, and for values that cannot be used.
    """
    if false_alarm_rate is not None and threshold is not None:
        raise UsageError("a false-alarm rate and a threshold exclude each other: the rate sets the threshold")
    if false_alarm_rate is not None:
        return calibration.limit(number_argument("false_alarm_rate", false_alarm_rate, 0.01))
    if threshold is None:
        return None
    threshold = number_argument("threshold", threshold, float(f"{own.score:.3g}"))
    return limit_at(threshold, scoring=scoring, calibration=calibration, own=own)


def limits_with(limits: Limits, reject: Limit) -> Limits:
    """The limits with another reject limit. A warn limit that is not below it becomes equal to it."""
    return Limits(warn=limits.warn if limits.warn.score < reject.score else reject, reject=reject)


def limit_at(threshold: float, *, scoring: Scoring, calibration: Calibration, own: Limit) -> Limit:
    """The limit at a score; `own`: the reject limit of the kit.

    UsageError for a threshold outside of the scores that an image can have. One far above all calibration scores is
    logged as a warning.
    """
    if not math.isfinite(threshold):
        raise UsageError(f"threshold {threshold}: expected a finite number")
    low, high = scoring.possible_scores
    near = f"the limit of the kit is {own.score:.6g}"
    if threshold < low:
        raise UsageError(
            f"threshold {threshold:g}: no score of this kit is below {low:.3g}, so every image would be rejected; "
            f"{near}"
        )
    if threshold > high:
        # Patch scores have no bound but that of float32, a number that helps nobody.
        most = f"above {high:.3g}" if scoring.kind == "image" else "so large"
        raise UsageError(
            f"threshold {threshold:g}: no score of this kit is {most}, so no image would be rejected; {near}"
        )
    least, most = calibration.scores[[0, -1]]
    if threshold > most + _FAR * (most - least):
        _LOG.warning(
            "threshold %g is far above the scores of normal images (%.6g to %.6g): defective parts may not be "
            "rejected; %s",
            threshold,
            least,
            most,
            near,
        )
    return Limit(score=threshold, target_rate=None, expected_rate=None)
