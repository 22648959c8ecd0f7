"""Text for people: one line for a terminal, valid Unicode for files, and numbers in words."""


def one_line(text: str) -> str:
    """The text on one line: control characters, which could break or colour the line, become escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def valid_text(text: str) -> str:
    """The text as valid Unicode: bytes of a path that are not valid text become backslash escapes."""
    try:
        # Bytes that Python could not decode come back as they were; valid UTF-8 among them becomes readable again.
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, as Windows allows in names
        data = text.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def percent(share: float) -> str:
    """0.0123 -> "1.2 %", 0.05 -> "5 %", 0.0004 -> "0.04 %"."""
    value = 100 * share
    return f"{value:.1f} %".replace(".0 %", " %") if value >= 1 else f"{value:.2g} %"


def size(count: int) -> str:
    """Bytes in decimal units: "51.6 kB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def many(count: int, noun: str, plural: str | None = None) -> str:
    """1 -> "1 image", 2 -> "2 images"."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
