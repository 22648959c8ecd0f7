"""Text for one line of a terminal."""


def one_line(text: str) -> str:
    """The text without anything that could break or colour a line: control characters become escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def valid_text(text: str) -> str:
    """The text as Unicode that any file can hold: bytes of a path that are none become backslash escapes."""
    try:
        # Bytes that Python could not decode are given back as they are; those of UTF-8 become readable again.
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, as Windows allows in names
        data = text.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


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
    """1 -> "1 image", 2 -> "2 images"."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
