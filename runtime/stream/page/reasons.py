"""Reasons of the stream in the language of a page.

The stream gives its reasons as English sentences, the same in its log, its events and here. The section `reason` of the
texts has those that people at the line see, with placeholders. A sentence that has one of these forms is written in the
language of the page, and so are the reasons within it. What has none of them comes from the operating system or from
another program: it stays as it is, and is marked as English.
"""

import re
import string
from collections.abc import Sequence
from functools import cache

from msc_edge.runtime.stream.page.texts import Language, Texts, texts

Part = tuple[str, str]
"""A text, and its language where that is not the language of the page, else ''."""

_SECTION = "reason."
_WITHIN = ("reason", "remedy", "detail", "still")  # placeholders of reasons within a reason
_NUMBER = r"\d[\d.,]*"
_FORMS = {  # of the other placeholders; by default anything
    "name": r"[A-Za-z0-9][\w.-]*",
    "address": r"\S+:\d+",
    "duration": r"\d+ (?:s|min|h|d)",
    "moment": r"[\d: -]+",
    "images": r"\d+ learned images?",
    **dict.fromkeys(("count", "seconds", "number", "most", "size", "score", "limit", "of", "after", "before"), _NUMBER),
    **dict.fromkeys(("role", "own"), "viewer|operator|engineer"),
}


def reason_in(t: Texts, reason: str) -> list[Part]:
    """A reason of the stream in the language of the texts, in parts. Empty for none."""
    if t.language == "en" or not reason:
        return [(reason, "")] if reason else []
    for key, pattern in _patterns():
        if found := pattern.fullmatch(reason):
            return _joined(_filled(t, key, found.groupdict()))
    return [(reason, "en")]


def as_text(parts: Sequence[Part]) -> str:
    """The parts as one text."""
    return "".join(text for text, _ in parts)


def _filled(t: Texts, key: str, values: dict[str, str]) -> list[Part]:
    found: list[Part] = []
    for literal, name, _, _ in string.Formatter().parse(t.all[key]):
        found.append((literal, ""))
        if name in _WITHIN:
            found += reason_in(t, values[name])
        elif name in ("role", "own"):
            found.append((t(f"role.{values[name]}"), ""))
        elif name == "images":
            found.append((values[name].partition(" ")[0], ""))
        elif name:
            found.append((values[name], ""))
    return found


def _joined(parts: Sequence[Part]) -> list[Part]:
    found: list[Part] = []
    for text, language in parts:
        if found and found[-1][1] == language:
            found[-1] = found[-1][0] + text, language
        elif text:
            found.append((text, language))
    return found


@cache
def _patterns() -> Sequence[tuple[str, re.Pattern[str]]]:
    """The keys of the reasons, in their order, and what their English texts match."""
    english: Language = "en"
    return [(key, _pattern(text)) for key, text in texts(english).all.items() if key.startswith(_SECTION)]


def _pattern(text: str) -> re.Pattern[str]:
    pattern = ""
    for literal, name, _, _ in string.Formatter().parse(text):
        pattern += re.escape(literal)
        if name:
            pattern += f"(?P<{name}>{_FORMS.get(name, '.+?')})"
    return re.compile(pattern, re.DOTALL)
