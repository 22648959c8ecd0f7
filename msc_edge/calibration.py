"""P-values and limits from the scores of normal images that were held out: conformal calibration.

For a new normal image, exchangeable with n images that were held out once, the conformal p-value

    p(s) = (1 + #{calibration scores >= s}) / (n + 1)

is at most r with probability at most r, for any r (Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a
Random World"; Bates et al. 2023, "Testing for outliers with conformal p-values"). A verdict at false-alarm rate
r is therefore p <= r, which is the same as a score above the m-th largest calibration score, m = floor(r (n + 1)).

Images that show the same part have similar scores, and count less than independent ones: n images in groups count as
n / b, where b is the design effect of their scores (Kish 1965, "Survey Sampling", section 5.4). In p(s) each
calibration score then has the weight 1 / b, and the new image the weight 1.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import ConfigDict

from msc_edge.errors import UsageError
from msc_edge.intervals import ROUNDING, alarm_count_interval, rate_interval

Verdict = Literal["normal", "warn", "reject"]

AT_A_LIMIT = "a score equal to a limit is not above it; where both limits are equal, no image gets warn"
"""The rule for the texts that explain the limits."""
WARN_RATE, REJECT_RATE = 0.05, 0.01
"""The target false-alarm rates of a kit, unless it is exported with others."""
LEAST_RATE = 1e-12
"""Smallest target false-alarm rate: a trillion images would be needed for it."""
# For the two classes below, which pydantic reads from manifest.json.
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Limit:
    """Scores above `score` are flagged.

    `target_rate` is the requested false-alarm rate. `expected_rate` is the expected share of normal images above the
    limit: the target rounded down to a multiple of 1 / (n + 1), but at least one such step. With too few calibration
    images the expected rate is therefore above the target. Both are None for a limit that was set by hand.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    score: float
    target_rate: float | None
    expected_rate: float | None

    @property
    def meets_target(self) -> bool:
        """Whether the calibration images are enough for the target rate."""
        return self.expected_rate is None or self.expected_rate <= (self.target_rate or 0) + ROUNDING


class Rates(NamedTuple):
    """Target false-alarm rates of a kit, each in (0, 1)."""

    warn: float
    reject: float
    region: float | None
    """Share of normal images with any region of the anomaly map; None: without map."""


@dataclass(frozen=True)
class Limits:
    """The two limits of a kit. Scores above `warn` need a look, scores above `reject` are rejected.

    A score equal to a limit is not above it: equal to `reject` it gets `warn`, if that limit is lower. Where both are
    equal, no image gets `warn`, and a score equal to both is `normal`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    warn: Limit
    reject: Limit

    def verdict(self, score: float) -> Verdict:
        """`normal`, `warn` or `reject` for one score. A score equal to a limit is not above it."""
        if score > self.reject.score:
            return "reject"
        return "warn" if score > self.warn.score else "normal"


class Calibration:
    """The scores of the calibration images in ascending order: float64 of shape (n,), n >= 1."""

    def __init__(self, scores: np.ndarray | list[float], groups: np.ndarray | Sequence[int] | None = None) -> None:
        """`scores`: in any order. `groups`: the group of each image; None: all images are independent.

        ValueError when there are no scores, when one is not finite, or when the groups are not as many.
        """
        given = np.asarray(scores, dtype=np.float64)
        if given.ndim != 1 or given.size == 0 or not np.isfinite(given).all():
            raise ValueError("a calibration needs at least one score, and finite scores only")
        order = np.argsort(given, kind="stable")
        self.scores = given[order]
        self.groups = np.arange(given.size) if groups is None else np.asarray(groups)[order]
        self.independent = _independent(self.scores, self.groups)
        """The number of independent images that these count as, from 1 to n."""

    @property
    def stored_groups(self) -> list[int] | None:
        """The group of each score, as a manifest has it; None if all images are independent."""
        return self.groups.tolist() if len(np.unique(self.groups)) < self.groups.size else None

    @property
    def alike(self) -> float:
        """How many images count as one independent image: the design effect, at least 1."""
        return self.scores.size / self.independent

    @property
    def least_p_value(self) -> float:
        """The p-value of every score above all calibration scores: 1 / (n + 1); n: the number of independent images."""
        return 1 / (self.independent + 1)

    def p_value(self, score: float) -> float:
        """The conformal p-value of a score, in [1 / (n + 1), 1]; n: the number of independent images."""
        at_least = self.scores.size - bisect_left(self.scores, score)
        return (1 + at_least / self.alike) / (self.independent + 1)

    def limit(self, rate: float) -> Limit:
        """The limit for a target false-alarm rate in [LEAST_RATE, 1). UsageError for other rates."""
        _check_rate(rate)
        n = self.scores.size
        # The most calibration scores that a flagged score may have at or above it.
        above = math.floor(self.alike * (rate * (self.independent + 1) - 1) + ROUNDING)
        above = min(max(0, above), n - 1)
        # The limit lies somewhere among the scores of one part: on average half of them are above it.
        count = max(1.0, 1 + above / self.alike - (1 - 1 / self.alike) / 2)
        return Limit(float(self.scores[n - 1 - above]), target_rate=rate, expected_rate=count / (self.independent + 1))

    def gives(self, limit: Limit, rate: float) -> bool:
        """Whether a limit is the one for this target rate in [LEAST_RATE, 1), up to rounding of the rates."""
        own = self.limit(rate)
        rates = ((limit.target_rate, rate), (limit.expected_rate, own.expected_rate))
        return limit.score == own.score and all(
            one is not None and other is not None and math.isclose(one, other, rel_tol=ROUNDING) for one, other in rates
        )

    def interval(self, limit: Limit) -> tuple[float, float] | None:
        """The 90 % interval of the false-alarm rate of one of its limits; None for a limit that was set by hand.

        See `rate_interval`.
        """
        if limit.expected_rate is None:
            return None
        return rate_interval(self.count_above(limit.expected_rate), self.independent)

    def alarm_interval(self, limit: Limit, images: int) -> tuple[int, int] | None:
        """How many of `images` normal images one of its limits flags, 9 times out of 10: (lowest, highest).

        None for a limit that was set by hand. See `alarm_count_interval`.
        """
        if limit.expected_rate is None:
            return None
        count = self.count_above(limit.expected_rate)
        return alarm_count_interval(count, self.independent, images, alike=self.alike)

    def count_above(self, expected_rate: float) -> float:
        """The m of a limit that is the m-th largest score of n independent images: m = expected_rate * (n + 1)."""
        return min(max(1.0, expected_rate * (self.independent + 1)), self.independent)

    def limits(self, *, warn_rate: float, reject_rate: float) -> Limits:
        """Both limits of a kit. UsageError when the warn rate is below the reject rate."""
        if warn_rate < reject_rate:
            raise UsageError(
                f"the warn rate {warn_rate:g} is below the reject rate {reject_rate:g}; "
                "pass a warn rate that is at least the reject rate"
            )
        return Limits(warn=self.limit(warn_rate), reject=self.limit(reject_rate))


def images_needed(rate: float) -> int:
    """The smallest number of calibration images for a target false-alarm rate in (0, 1): ceil(1 / rate) - 1."""
    _check_rate(rate)
    # A rate close to 1 needs no image, but a calibration must not be empty.
    return max(1, math.ceil(1 / rate * (1 - ROUNDING)) - 1)


def _independent(scores: np.ndarray, groups: np.ndarray) -> float:
    """The number of independent images that scores in groups count as: n / (1 + (m - 1) rho), one a group at most.

    m is the mean size of the group of an image. rho, in [0, 1], is how alike the scores of a group are: the intraclass
    correlation of their normal scores, by a one-way analysis of variance (Donner 1986, "A review of inference
    procedures for the intraclass correlation coefficient", section 2). Few groups know rho badly: where one part in
    fifty differs as a whole, forty parts may not have it among them.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n, count = len(scores), len(sizes)
    if count in (1, n):
        return float(count)
    _, place, equal = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(equal) - (equal - 1) / 2)[place]
    values = np.array([NormalDist().inv_cdf((rank - 0.5) / n) for rank in ranks])
    means = np.bincount(group, values) / sizes
    between = float((sizes * np.square(means - values.mean())).sum()) / (count - 1)
    within = float(np.square(values - means[group]).sum()) / (n - count)
    typical = (n - float(np.square(sizes).sum()) / n) / (count - 1)
    total = between + (typical - 1) * within
    rho = min(max((between - within) / total, 0.0), 1.0) if total > 0 else 1.0
    return min(float(count), n / (1 + (float(np.square(sizes).sum()) / n - 1) * rho))


def _check_rate(rate: float) -> None:
    if not LEAST_RATE <= rate < 1:
        raise UsageError(f"false-alarm rate {rate:g}: expected a number between 0 and 1, for example 0.01")
