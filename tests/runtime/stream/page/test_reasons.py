"""The reasons of the stream in German: those that it gives, and nothing that it does not say."""

import ast
import re
import string
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

import msc_edge
from msc_edge.runtime.stream.page.reasons import as_text, reason_in
from msc_edge.runtime.stream.page.texts import texts
from msc_edge.runtime.stream.sources.folder_listing import Listing, ListingWatch
from msc_edge.runtime.stream.sources.outage import Outage, OutageState

GERMAN, ENGLISH = texts("de"), texts("en")
KEYS = [key for key in ENGLISH.all if key.startswith("reason.")]
# Put together by code; the tests below have the real ones.
COMPOSED = {"reason.share_gone"} | {
    f"reason.{state}{because}" for state in ("lost", "frozen", "connecting") for because in ("", "_because")
}
VALUES = {
    **dict.fromkeys(("count", "seconds", "number", "most", "size", "score", "limit", "of", "after", "before"), "7"),
    **{"name": "camera-1", "address": "10.0.0.5:1883", "duration": "12 min", "moment": "12:30:16", "role": "engineer"},
    **{"own": "viewer", "images": "3 learned images", "reason": "Connection refused"},
}


@cache
def sentences() -> set[str]:
    """Every text in the code, with {} for its values."""
    package = Path(msc_edge.__file__).parent
    files = [*package.rglob("*.py"), *(package.parent / "runtime").rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))))
    return {_form(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)}


def _form(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    pieces = [piece.value if isinstance(piece, ast.Constant) else "{}" for piece in node.values]
    return re.sub(r"(\{\})+", "{}", "".join(map(str, pieces)))


@pytest.mark.parametrize("key", [key for key in KEYS if key not in COMPOSED])
def test_the_stream_gives_this_reason(key: str) -> None:
    assert re.sub(r"\{\w+\}", "{}", ENGLISH.all[key]) in sentences()


@pytest.mark.parametrize("key", KEYS)
def test_a_reason_is_said_in_german_and_no_other_one_is_taken_for_it(key: str) -> None:
    names = {name for _, name, _, _ in string.Formatter().parse(ENGLISH.all[key]) if name}
    said = ENGLISH.all[key].format(**{name: VALUES.get(name, f"some {name}") for name in names})
    german = as_text(reason_in(GERMAN, said))
    for literal, _, _, _ in string.Formatter().parse(GERMAN.all[key]):
        assert literal in german
    assert reason_in(ENGLISH, said) == [(said, "")]


def test_what_the_operating_system_says_stays_english_and_is_marked() -> None:
    said = "source camera-1: lost for 35 s, since 12:32:51: cannot be reached: Connection refused"
    assert reason_in(GERMAN, said) == [
        ("Quelle camera-1: keine Bilder seit 12:32:51 (35 s): nicht erreichbar: ", ""),
        ("Connection refused", "en"),
    ]
    said = "cannot write /data/rows.jsonl: No space left on device; free some space"
    assert reason_in(GERMAN, said) == [
        ("/data/rows.jsonl kann nicht geschrieben werden: ", ""),
        ("No space left on device", "en"),
        ("; Platz schaffen", ""),
    ]
    assert reason_in(GERMAN, "anything else") == [("anything else", "en")]
    assert reason_in(GERMAN, "") == reason_in(ENGLISH, "") == []


@pytest.mark.parametrize("state", sorted(set(get_args(OutageState)) - {"ended", "stalled"}))
def test_each_outage_of_a_source_is_said_in_german(state: OutageState) -> None:
    for outage in (Outage(state), Outage(state, "no image came in time")):
        assert [language for _, language in reason_in(GERMAN, str(outage))] == [""]
    assert as_text(reason_in(GERMAN, str(Outage(state, "no image came in time")))).endswith(": es kam kein Bild")


def test_a_share_that_is_gone_is_said_in_german() -> None:
    watch = ListingWatch()
    watch.look(Listing(device=1, is_mounted=True), lambda *_: None)
    watch.look(Listing(device=1, is_mounted=False), lambda *_: None)
    assert reason_in(GERMAN, watch.reason) == [("die Freigabe oder Festplatte dieses Ordners fehlt", "")]


def test_the_roles_are_those_of_the_page() -> None:
    said = "this needs the role operator, and anna is a viewer; ask an engineer"
    expected = "dazu ist die Rolle Bediener nötig, und anna ist Betrachter; einen Ingenieur fragen"
    assert as_text(reason_in(GERMAN, said)) == expected
