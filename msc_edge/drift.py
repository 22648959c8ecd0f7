"""Whether the scores of a line are still those of its calibration: a conformal test martingale.

While the images of a line are exchangeable with the calibration images, the rank of each new score among all scores
before it is uniform, and independent of earlier ranks (Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random
World", section 8.2). Whoever bets against that, with a capital of 1, has CALLED or more with a probability of at most
1 / CALLED, however long the line runs (Ville's inequality; Vovk 2021, "Testing randomness online"). The capital is
spread beforehand over all images with which a drift may begin, and over bets on small and on large drifts: a drift
after a million images is called nearly as soon as one after a thousand.

A third of the capital bets on each of three changes. Scores that rise are compared with the calibration and with the
line; a calibration that was held out in turn has slightly higher scores than new images, which can only delay a call.
Scores that fall are compared with the line alone. Rejected parts take no part in both: a defect is no drift. But the
share of rejected parts must not rise: it is compared with the line alone, too.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from msc_edge.calibration import Calibration

CALLED = 100.0
"""Capital at which a drift is called: at most one line in so many that has none is called, over its whole life."""
_EXPONENTS = (0.25, 0.5, 0.75, 0.9)  # of the bets e p^(e-1); small ones are for large drifts
_LEAST = 1e-12  # a p-value is not 0
_BIN_SHIFT = 15  # bits of a float32 that are left out: scores within 0.4 % share a bin

Change = Literal["rise", "fall", "rejects"]
CHANGES: tuple[Change, ...] = ("rise", "fall", "rejects")


@dataclass(frozen=True)
class DriftCall:
    """A drift was called."""

    change: Change
    """Scores rise, scores fall, or more parts are rejected."""
    since: int
    """The image with which it most likely began, by its number, from 1."""
    images: int
    """Number of images until the call."""


@dataclass
class Ranks:
    """The scores so far, counted in fixed bins, so that memory is bounded however long a line runs."""

    bins: list[int] = field(default_factory=list)
    """In ascending order."""
    counts: list[int] = field(default_factory=list)
    total: int = 0

    def add(self, score: float) -> float:
        """Add a finite score; its p-value among all before it: uniform in (0, 1] while they are exchangeable.

        Equal scores are ordered at random, by a number that depends on how many there were.
        """
        number = _bin_of(score)
        place = bisect_left(self.bins, number)
        if place == len(self.bins) or self.bins[place] != number:
            self.bins.insert(place, number)
            self.counts.insert(place, 0)
        above, equal = sum(self.counts[place + 1 :]), self.counts[place]
        p_value = (above + (1 - random.Random(self.total).random()) * (equal + 1)) / (self.total + 1)
        self.counts[place] += 1
        self.total += 1
        return p_value

    def checked(self) -> "Ranks":
        """The ranks themselves. TypeError or ValueError if they cannot be those of scores: from a damaged file."""
        if self.bins != sorted(set(map(int, self.bins))) or len(self.counts) != len(self.bins):
            raise ValueError("bins")
        if min(self.counts, default=1) < 1 or sum(map(int, self.counts)) != self.total:
            raise ValueError("counts")
        return self


@dataclass
class Bets:
    """The capital of bets on small p-values."""

    count: int = 0
    capitals: list[float] = field(default_factory=lambda: [0.0] * len(_EXPONENTS))
    """For each bet, of all beginnings so far."""
    best: list[float] = field(default_factory=lambda: [0.0] * len(_EXPONENTS))
    """For each bet, of the beginning that has gained most."""
    since: list[int] = field(default_factory=lambda: [1] * len(_EXPONENTS))
    """That beginning."""

    def add(self, p_value: float, *, image: int) -> None:
        """Bet on the p-value of an image, in (0, 1]; `image`: its number."""
        fresh = _unspent(self.count) - _unspent(self.count + 1)
        self.count += 1
        for each, exponent in enumerate(_EXPONENTS):
            gain = exponent * p_value ** (exponent - 1)
            self.capitals[each] = (self.capitals[each] + fresh) * gain
            if fresh > self.best[each]:
                self.best[each], self.since[each] = fresh, image
            self.best[each] *= gain

    def checked(self) -> "Bets":
        """The bets themselves. TypeError or ValueError if no p-values can have led to them: from a damaged file."""
        if any(len(each) != len(_EXPONENTS) for each in (self.capitals, self.best, self.since)):
            raise ValueError("bets")
        if self.count < 0 or not all(math.isfinite(each) and each >= 0 for each in (*self.capitals, *self.best)):
            raise ValueError("capitals")
        self.count, self.since = int(self.count), [int(each) for each in self.since]
        return self

    @property
    def capital(self) -> float:
        """The whole capital; 1 at the beginning."""
        return sum(self.capitals) / len(_EXPONENTS) + _unspent(self.count)

    @property
    def likely_since(self) -> int:
        """The beginning that has gained most: the number of an image."""
        return self.since[int(np.argmax(self.best))]


class DriftTest:
    """Bets on the scores of one line with one kit."""

    def __init__(self, calibration: Sequence[float], limit: float) -> None:
        """`calibration`: scores of independent calibration images, see `independent`. `limit`: the reject limit.

        Calibration scores that are not below the limit are left out: the others are those of images that pass.
        """
        self._limit = limit
        self.images = 0
        """How many were added."""
        self._ranks: dict[Change, Ranks] = {change: Ranks() for change in CHANGES}
        self._bets: dict[Change, Bets] = {change: Bets() for change in CHANGES}
        for score in calibration:
            if score < limit:
                self._ranks["rise"].add(score)

    def add(self, score: float) -> DriftCall | None:
        """Add the score of the next image; the call, with each image from the first one on that brings it."""
        self.images += 1
        is_rejected = score > self._limit
        self._bet("rejects", self._ranks["rejects"].add(float(is_rejected)))
        if not is_rejected:
            self._bet("rise", self._ranks["rise"].add(score))
            self._bet("fall", 1 - self._ranks["fall"].add(score) + _LEAST)
        return self.call

    def _bet(self, change: Change, p_value: float) -> None:
        self._bets[change].add(p_value, image=self.images)

    @property
    def capital(self) -> float:
        """The mean of all bets; 1 at the beginning."""
        return sum(bets.capital for bets in self._bets.values()) / len(CHANGES)

    @property
    def call(self) -> DriftCall | None:
        """The call, if the capital has reached CALLED."""
        if self.capital < CALLED:
            return None
        change, bets = max(self._bets.items(), key=lambda item: item[1].capital)
        return DriftCall(change, bets.likely_since, self.images)

    def state(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            "limit": self._limit,
            "images": self.images,
            "ranks": {change: asdict(ranks) for change, ranks in self._ranks.items()},
            "bets": {change: asdict(bets) for change, bets in self._bets.items()},
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> "DriftTest":
        """The test that `state` described. KeyError, TypeError or ValueError if it is not one."""
        test = cls((), float(state["limit"]))
        test.images = int(state["images"])
        test._ranks = {change: Ranks(**state["ranks"][change]).checked() for change in CHANGES}
        test._bets = {change: Bets(**state["bets"][change]).checked() for change in CHANGES}
        return test


def independent(calibration: Calibration) -> list[float]:
    """One score of each group of the calibration images, chosen at random, the same each time.

    Images of one part are alike: all of them would pretend to know the scores of the line better than they do.
    """
    order = np.random.default_rng(0).permutation(len(calibration.scores))
    _, first = np.unique(calibration.groups[order], return_index=True)
    return calibration.scores[order[first]].tolist()


def _unspent(images: int) -> float:
    """The share of the capital that is kept for drifts that begin after so many images: it falls slowly, from 1."""
    return 1 / (1 + math.log1p(images))


def _bin_of(score: float) -> int:
    """The number of the bin of a score; higher scores have no lower numbers. The bins depend on no data."""
    bits = int(np.float32(score).view(np.int32))
    return (bits if bits >= 0 else -(bits & 0x7FFFFFFF)) >> _BIN_SHIFT
