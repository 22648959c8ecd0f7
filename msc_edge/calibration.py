"""P-values and limits from the scores of held-out normal images: split-conformal calibration.

For a new normal image, exchangeable with the n held-out ones, the conformal p-value

    p(s) = (1 + #{calibration scores >= s}) / (n + 1)

is at most r with probability at most r, for any r (Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a
Random World"; Bates et al. 2023, "Testing for outliers with conformal p-values"). A verdict at false-alarm rate
r is therefore p <= r, which is the same as a score above the m-th largest calibration score, m = floor(r (n + 1)).
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import ConfigDict

from msc_edge.errors import UsageError

Verdict = Literal["normal", "warn", "reject"]

LEAST_RATE = 1e-12
"""Smallest target false-alarm rate: a trillion images would be needed for it."""
# Corrects rounding such as 0.29 * 100 = 28.999999999999996.
_ROUNDING = 1e-9
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
        return self.expected_rate is None or self.expected_rate <= (self.target_rate or 0) + _ROUNDING


@dataclass(frozen=True)
class Limits:
    """The two limits of a kit. Scores above `warn` need a look, scores above `reject` are rejected."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    warn: Limit
    reject: Limit

    def verdict(self, score: float) -> Verdict:
        """`normal`, `warn` or `reject` for one score."""
        if score > self.reject.score:
            return "reject"
        return "warn" if score > self.warn.score else "normal"


class Calibration:
    """The scores of the held-out normal images in ascending order: float64 of shape (n,), n >= 1."""

    def __init__(self, scores: np.ndarray | list[float]) -> None:
        """`scores`: in any order. ValueError when there are none, or one is not finite."""
        self.scores = np.sort(np.asarray(scores, dtype=np.float64))
        if self.scores.ndim != 1 or self.scores.size == 0 or not np.isfinite(self.scores).all():
            raise ValueError("a calibration needs at least one score, and finite scores only")

    def p_value(self, score: float) -> float:
        """The conformal p-value of a score, in [1 / (n + 1), 1]."""
        at_least = len(self.scores) - bisect_left(self.scores, score)
        return (1 + at_least) / (len(self.scores) + 1)

    def limit(self, rate: float) -> Limit:
        """The limit for a target false-alarm rate in [LEAST_RATE, 1). UsageError for other rates."""
        _check_rate(rate)
        n = self.scores.size
        flagged = min(max(1, math.floor(rate * (n + 1) + _ROUNDING)), n)
        return Limit(score=float(self.scores[n - flagged]), target_rate=rate, expected_rate=flagged / (n + 1))

    def gives(self, limit: Limit, rate: float) -> bool:
        """Whether a limit is the one for this target rate in [LEAST_RATE, 1), up to rounding of the rates."""
        own = self.limit(rate)
        rates = ((limit.target_rate, rate), (limit.expected_rate, own.expected_rate))
        return limit.score == own.score and all(
            one is not None and other is not None and math.isclose(one, other, rel_tol=_ROUNDING)
            for one, other in rates
        )

    def interval(self, limit: Limit) -> tuple[float, float] | None:
        """The 90 % interval of the false-alarm rate of one of its limits; None for a limit that was set by hand.

        See `rate_interval`.
        """
        if limit.expected_rate is None:
            return None
        return rate_interval(self.count_above(limit.expected_rate), self.scores.size)

    def alarm_interval(self, limit: Limit, images: int) -> tuple[int, int] | None:
        """How many of `images` normal images one of its limits flags, 9 times out of 10: (lowest, highest).

        None for a limit that was set by hand. See `alarm_count_interval`.
        """
        if limit.expected_rate is None:
            return None
        return alarm_count_interval(self.count_above(limit.expected_rate), self.scores.size, images)

    def count_above(self, expected_rate: float) -> int:
        """The m of a limit that is the m-th largest calibration score: m = expected_rate * (n + 1)."""
        return min(max(1, round(expected_rate * (self.scores.size + 1))), self.scores.size)

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
    return max(1, math.ceil(1 / rate * (1 - _ROUNDING)) - 1)


def alarm_count_interval(count: int, held_out: int, images: int, *, confidence: float = 0.9) -> tuple[int, int]:
    """How many of `images` normal images a limit flags with probability `confidence`: (lowest, highest).

    `count` is `Calibration.count_above` of the limit, `held_out` the number of calibration images. The share of normal
    images above the limit is Beta(count, held_out + 1 - count), so the number of flagged images is beta-binomial. Both
    ends are central quantiles. They are whole numbers, so the probability is at least `confidence`.
    """
    a, b = count, held_out + 1 - count
    tail = (1 - confidence) / 2
    below, lowest = 0.0, 0
    for flagged in range(images + 1):
        # C(images, flagged) = 1 / ((images + 1) B(flagged + 1, images - flagged + 1))
        log_choose = -math.log(images + 1) - _log_beta(flagged + 1, images - flagged + 1)
        if below <= tail + _ROUNDING:
            lowest = flagged
        below += math.exp(log_choose + _log_beta(flagged + a, images - flagged + b) - _log_beta(a, b))
        if below >= 1 - tail - _ROUNDING:
            return lowest, flagged
    return lowest, images


def rate_interval(count: int, held_out: int, confidence: float = 0.9) -> tuple[float, float]:
    """The interval that holds the false-alarm rate of a limit with probability `confidence`: (low, high) in (0, 1).

    `count` is `Calibration.count_above` of the limit, 1 <= count <= held_out. Over the draw of the calibration images
    the share of all normal images above the limit is Beta(count, held_out + 1 - count) (Vovk 2012, "Conditional
    validity of inductive conformal predictors", section 3), with mean count / (held_out + 1). Both ends are central
    quantiles. ValueError outside these ranges.
    """
    if not (1 <= count <= held_out and 0 < confidence < 1):
        raise ValueError(f"expected 1 <= count <= held_out and 0 < confidence < 1, got {count=} {held_out=}")
    # Beta(m, n + 1 - m) is above x exactly when fewer than m of n uniform numbers are below x: a binomial tail.
    counts = np.arange(count)
    log_choose = np.array([-math.log(held_out + 1) - _log_beta(i + 1, held_out - i + 1) for i in range(count)])

    def share_above(rate: float) -> float:
        return float(np.exp(log_choose + counts * math.log(rate) + (held_out - counts) * math.log1p(-rate)).sum())

    def rate_where(share: float) -> float:
        low, high = 0.0, 1.0
        while low < (middle := (low + high) / 2) < high:  # bisects until the floats are adjacent
            low, high = (middle, high) if share_above(middle) > share else (low, middle)
        return high

    tail = (1 - confidence) / 2
    return rate_where(1 - tail), rate_where(tail)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _check_rate(rate: float) -> None:
    if not LEAST_RATE <= rate < 1:
        raise UsageError(f"false-alarm rate {rate:g}: expected a number between 0 and 1, for example 0.01")
