"""From scores to decisions, with held-out normal images alone: split-conformal p-values and limits.

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

# Undoes the rounding of, say, 0.29 * 100 = 28.999999999999996.
_ROUNDING = 1e-9
# How the two classes below are read from manifest.json.
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Limit:
    """A score above `score` is flagged. `expected_rate` is the expected share of normal images flagged by it.

    `expected_rate` equals `target_rate` rounded down to a multiple of 1 / (n + 1); where even one such step is
    more than was requested, n is too small, and the promise is that one step. It is None for a limit set by hand.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    score: float
    target_rate: float | None
    expected_rate: float | None

    @property
    def meets_target(self) -> bool:
        """Whether the held-out images were enough to promise the requested rate."""
        return self.expected_rate is None or self.expected_rate <= (self.target_rate or 0) + _ROUNDING


@dataclass(frozen=True)
class Limits:
    """The two limits of a kit: from `warn` up somebody should look, from `reject` up the part goes out."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    warn: Limit
    reject: Limit

    def verdict(self, score: float) -> Verdict:
        """`normal`, `warn` or `reject` for one score."""
        if score > self.reject.score:
            return "reject"
        return "warn" if score > self.warn.score else "normal"


class Calibration:
    """The sorted scores of the held-out normal images, float64 of shape (n,), n >= 1."""

    def __init__(self, scores: np.ndarray | list[float]) -> None:
        """Take the scores in any order."""
        self.scores = np.sort(np.asarray(scores, dtype=np.float64))
        if self.scores.ndim != 1 or self.scores.size == 0 or not np.isfinite(self.scores).all():
            raise ValueError("calibration needs at least one score, and all of them finite")

    def p_value(self, score: float) -> float:
        """The conformal p-value of a score, in [1 / (n + 1), 1]."""
        at_least = len(self.scores) - bisect_left(self.scores, score)
        return (1 + at_least) / (len(self.scores) + 1)

    def limit(self, rate: float) -> Limit:
        """The limit for a false-alarm rate in (0, 1). UsageError outside."""
        _check_rate(rate)
        n = self.scores.size
        flagged = min(max(1, math.floor(rate * (n + 1) + _ROUNDING)), n)
        return Limit(score=float(self.scores[n - flagged]), target_rate=rate, expected_rate=flagged / (n + 1))

    def band(self, limit: Limit) -> tuple[float, float] | None:
        """Where the false-alarm rate of one of its limits lies with 90 % probability; None for one set by hand.

        See `rate_interval`.
        """
        return (
            None if limit.expected_rate is None else rate_interval(self.flagged(limit.expected_rate), self.scores.size)
        )

    def flagged(self, expected_rate: float) -> int:
        """By how many of the calibration scores a limit is passed, one more in the long run: expected_rate (n + 1)."""
        return min(max(1, round(expected_rate * (self.scores.size + 1))), self.scores.size)

    def limits(self, *, warn_rate: float, reject_rate: float) -> Limits:
        """Both limits of a kit. UsageError when warn is rarer than reject."""
        if warn_rate < reject_rate:
            raise UsageError(
                f"the warn rate {warn_rate:g} is below the reject rate {reject_rate:g}: "
                "every reject is also a warning, so give the larger rate to warn"
            )
        return Limits(warn=self.limit(warn_rate), reject=self.limit(reject_rate))


def images_needed(rate: float) -> int:
    """The least number of held-out images that can promise a false-alarm rate in (0, 1): ceil(1 / rate) - 1."""
    _check_rate(rate)
    # An image at least: a rate of nearly 1 needs none, but a calibration cannot be empty.
    return max(1, math.ceil(1 / rate * (1 - _ROUNDING)) - 1)


def alarm_count_interval(flagged: int, held_out: int, images: int, *, confidence: float = 0.9) -> tuple[int, int]:
    """How many of `images` normal images a limit will flag, with probability `confidence`: (least, most).

    The limit is passed by `flagged` of the `held_out` calibration images and one more in the long run: the share of
    normal images above it is Beta(flagged, held_out + 1 - flagged), so the count is beta-binomial. Both ends are
    central quantiles, and whole numbers, so the band holds at least `confidence`.
    """
    a, b = flagged, held_out + 1 - flagged
    tail = (1 - confidence) / 2
    below, least = 0.0, 0
    for count in range(images + 1):
        # C(images, count) = 1 / ((images + 1) B(count + 1, images - count + 1))
        ways = -math.log(images + 1) - _log_beta(count + 1, images - count + 1)
        if below <= tail + _ROUNDING:
            least = count
        below += math.exp(ways + _log_beta(count + a, images - count + b) - _log_beta(a, b))
        if below >= 1 - tail - _ROUNDING:
            return least, count
    return least, images


def rate_interval(flagged: int, held_out: int, confidence: float = 0.9) -> tuple[float, float]:
    """Between which false-alarm rates a limit lies, with probability `confidence`: (low, high), each in (0, 1).

    The limit is passed by `flagged` of the `held_out` calibration images and one more in the long run, so
    1 <= flagged <= held_out. The share of all normal images above it is then Beta(flagged, held_out + 1 - flagged)
    over the draw of the calibration images (Vovk 2012, "Conditional validity of inductive conformal predictors",
    section 3), with mean flagged / (held_out + 1). Both ends are central quantiles. ValueError outside the ranges.
    """
    if not (1 <= flagged <= held_out and 0 < confidence < 1):
        raise ValueError(f"expected 1 <= flagged <= held_out and 0 < confidence < 1, got {flagged=} {held_out=}")
    # Beta(m, n + 1 - m) is above x where fewer than m of n uniform numbers are below x, which is binomial.
    counts = np.arange(flagged)
    log_ways = np.array([-math.log(held_out + 1) - _log_beta(i + 1, held_out - i + 1) for i in range(flagged)])

    def share_above(rate: float) -> float:
        return float(np.exp(log_ways + counts * math.log(rate) + (held_out - counts) * math.log1p(-rate)).sum())

    def rate_where(share: float) -> float:
        low, high = 0.0, 1.0
        while low < (middle := (low + high) / 2) < high:  # until no number lies between them
            low, high = (middle, high) if share_above(middle) > share else (low, middle)
        return high

    tail = (1 - confidence) / 2
    return rate_where(1 - tail), rate_where(tail)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise UsageError(f"false-alarm rate {rate:g}: expected a number between 0 and 1, for example 0.01")
