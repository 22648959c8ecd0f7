"""Text for terminals, files and reports, and JSON text.

Names come from kits, cameras and file systems, so they may contain anything: terminal escapes, formulas, halves of
characters. These functions are called where text leaves the program.
"""

import json
import re
from typing import Any

# Controls that change a terminal or the order of characters, without tab and line ends.
_HARMFUL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Beginnings that spreadsheets take for a formula, in any width; after apostrophes for those that `csv_cell` adds.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_QUOTED = re.compile("'*\"")


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


def lines(text: str) -> str:
    """The same for a text of several lines, whose line ends stay."""
    return text if text.isprintable() else "\n".join(map(one_line, text.split("\n")))


def harmless_json(text: str) -> str:
    """A JSON text with escapes in place of the control characters in its strings: the same value."""
    return _HARMFUL.sub(lambda found: json.dumps(found[0])[1:-1], text)


def csv_cell(text: str) -> str:
    """A text as a CSV cell that spreadsheets do not take for a formula and terminals for a command.

    A text that begins like a formula gets an apostrophe in front. One with control characters, or with a quote at the
    beginning, becomes a JSON string behind an apostrophe. `csv_text` reverses both.
    """
    if _HARMFUL.search(text) or _QUOTED.match(text):
        return f"'{harmless_json(json.dumps(text, ensure_ascii=False))}"
    return f"'{text}" if _FORMULA.match(text) else text


def csv_text(cell: str) -> str:
    """The text of a cell that `csv_cell` made. ValueError for a cell that it cannot have made."""
    if cell.startswith("'\""):
        text = strict_json(cell[1:])
        if not isinstance(text, str):
            raise ValueError("not a JSON string behind an apostrophe")
        return text
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


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
