"""A reject limit that is set by hand."""

import logging
import math

from msc_edge.calibration import Calibration, Limit
from msc_edge.errors import UsageError
from msc_edge.scoring import Scoring

_LOG = logging.getLogger("msc_edge")
_FAR = 10  # times the range of the calibration scores: few anomalies have such a score


def limit_at(threshold: float, *, scoring: Scoring, calibration: Calibration, own: Limit) -> Limit:
    """The limit at a score; `own`: the reject limit of the kit.

    UsageError for a threshold outside of the scores that an image can have. One far above all calibration scores is
    logged as a warning.
    """
    if not math.isfinite(threshold):
        raise UsageError(f"threshold {threshold}: expected a finite number")
    low, high = scoring.possible_scores
    near = f"the limit of the kit is {own.score:.6g}"
    if not low <= threshold <= high:
        rejected = "every image" if threshold < low else "no image"
        raise UsageError(
            f"threshold {threshold:g}: the scores of this kit lie between {low:.3g} and {high:.3g}, so {rejected} "
            f"would be rejected; {near}"
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
