"""Intervals of the false-alarm rate of a limit, and of the number of false alarms among new images."""

import math

# Corrects rounding such as 0.29 * 100 = 28.999999999999996.
ROUNDING = 1e-9


def rate_interval(count: float, held_out: float, confidence: float = 0.9) -> tuple[float, float]:
    """The interval that holds the false-alarm rate of a limit with probability `confidence`: (low, high) in (0, 1).

    The limit is the `count`-th largest of `held_out` independent calibration scores, 1 <= count <= held_out. Over the
    draw of the calibration images the share of all normal images above the limit is Beta(count, held_out + 1 - count)
    (Vovk 2012, "Conditional validity of inductive conformal predictors", section 3), with mean count / (held_out + 1).
    Both ends are central quantiles. Neither number needs to be whole, see `Calibration`. ValueError outside these
    ranges.
    """
    if not (1 <= count <= held_out and 0 < confidence < 1):
        raise ValueError(f"expected 1 <= count <= held_out and 0 < confidence < 1, got {count=} {held_out=}")

    def rate_where(share: float) -> float:
        low, high = 0.0, 1.0
        while low < (middle := (low + high) / 2) < high:  # bisects until the floats are adjacent
            low, high = (middle, high) if _beta_share(middle, count, held_out + 1 - count) < share else (low, middle)
        return high

    tail = (1 - confidence) / 2
    return rate_where(tail), rate_where(1 - tail)


def alarm_count_interval(
    count: float, held_out: float, images: int, *, alike: float = 1, confidence: float = 0.9
) -> tuple[int, int]:
    """How many of `images` normal images a limit flags with probability `confidence`: (lowest, highest).

    `count` and `held_out` as in `rate_interval`. The share of normal images above the limit is
    Beta(count, held_out + 1 - count), so the number of flagged images is beta-binomial. Both ends are central
    quantiles. They are whole numbers, so the probability is at least `confidence`.

    `alike`: how many of the images count as one independent image, at least 1. They are flagged together.
    """
    a, b = count, held_out + 1 - count
    independent = max(1, round(images / alike))
    tail = (1 - confidence) / 2
    below, lowest, highest = 0.0, 0, independent
    for flagged in range(independent + 1):
        # C(images, flagged) = 1 / ((images + 1) B(flagged + 1, images - flagged + 1))
        log_choose = -math.log(independent + 1) - _log_beta(flagged + 1, independent - flagged + 1)
        if below <= tail + ROUNDING:
            lowest = flagged
        below += math.exp(log_choose + _log_beta(flagged + a, independent - flagged + b) - _log_beta(a, b))
        if below >= 1 - tail - ROUNDING:
            highest = flagged
            break
    size = images / independent
    return math.floor(lowest * size + ROUNDING), min(images, math.ceil(highest * size - ROUNDING))


def _beta_share(value: float, a: float, b: float) -> float:
    """The share of Beta(a, b) below a value in (0, 1), by its continued fraction (NIST DLMF 8.17.22)."""
    if value > (a + 1) / (a + b + 2):
        return 1 - _beta_share(1 - value, b, a)
    front = math.exp(a * math.log(value) + b * math.log1p(-value) - _log_beta(a, b)) / a
    # The modified Lentz method (Thompson & Barnett 1986) computes the fraction from its beginning.
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * value / (a + 1), tiny)
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * value / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * value / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d, tiny)
            c = _not_zero(1 + term / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * fraction


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
