"""Text for terminals, files and reports, and JSON text."""

import json
from typing import Any


def strict_json(text: str | bytes) -> Any:
    """The value of a JSON text as RFC 8259 defines it: without NaN and Infinity. ValueError for anything else."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def one_line(text: str) -> str:
    """The text with escapes in place of control characters, which could break or colour the line."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def valid_text(text: str) -> str:
    """The text as valid Unicode: undecodable bytes of a path become backslash escapes."""
    try:
        # Restores bytes that Python could not decode, so that valid UTF-8 among them becomes readable.
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, as Windows allows in names
        data = text.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def percent(share: float) -> str:
    """A share in [0, 1] in percent, to two digits or one decimal: 0.0123 gives "1.2 %", 0.0004 gives "0.04 %"."""
    value = 100 * share
    return f"{value:.1f} %".replace(".0 %", " %") if value >= 1 else f"{value:.2g} %"


def size(count: int) -> str:
    """A number of bytes in decimal units, such as "51.6 kB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def many(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: "1 image", "2 images". `plural` is for nouns that do not just take an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
