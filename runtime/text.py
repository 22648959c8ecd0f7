"""How values are put into words for a person at a terminal."""

from msc_edge.text import one_line

__all__ = ["many", "one_line", "percent", "size"]


def percent(share: float) -> str:
    """0.0123 -> "1.2 %", 0.05 -> "5 %", 0.0004 -> "0.04 %": two significant digits where there are fewer than that."""
    value = 100 * share
    return f"{value:.1f} %".replace(".0 %", " %") if value >= 1 else f"{value:.2g} %"


def size(count: int) -> str:
    """Bytes in decimal units, as disks are sold: "51.6 kB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def many(count: int, noun: str, plural: str | None = None) -> str:
    """1 -> "1 picture", 2 -> "2 pictures"."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
