"""The languages of the page say the same."""

import re
import string
from importlib.resources import files

import pytest

from msc_edge.runtime.stream.page.texts import LANGUAGES, texts


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each != "en"])
def test_every_language_has_the_same_texts_with_the_same_values(language) -> None:
    english, other = texts("en").all, texts(language).all
    assert list(other) == list(english)
    for key, text in other.items():
        values, known = placeholders(text), placeholders(english[key])
        assert values == known or (key.startswith("reason.") and set(values) < set(known)), key
    assert [key for key, text in other.items() if not text.strip()] == []


def test_there_is_a_file_for_each_language_and_no_other() -> None:
    folder = files("msc_edge.runtime.stream.page").joinpath("texts")
    assert sorted(each.name for each in folder.iterdir()) == sorted(f"{language}.toml" for language in LANGUAGES)


def test_every_text_is_used_and_every_text_that_is_used_is_there() -> None:
    package = files("msc_edge.runtime.stream.page")
    code = "".join(
        file.read_text("utf-8")
        for folder in ("pages", "static", ".")
        for file in package.joinpath(folder).iterdir()
        if file.name.endswith((".j2", ".js", ".py"))
    )
    used = set(re.findall(r"""\b(?:t|texts_of\(request\))\(["']([\w.]+)["']""", code))
    used |= {f"script.{name}" for name in re.findall(r"""\b(?:text|nodes)\(["'](\w+)["']""", code)}
    used |= set(re.findall(r'"(gallery\.none\w*)"', code))
    used = {key for key in used if not key.endswith((".", "_"))}
    # Names that are put together, such as t("verdict." ~ outcome).
    beginnings = set(re.findall(r"""\bt\(["']([\w.]+[._])["'] ~""", code)) | {"script.state_", "script.sink_"}
    words = ("normal", "warn", "reject", "not_scored", "none", "no_frames", "no_data", "ended")
    outcomes = {f"script.{name}" for name in words}
    known = {key for key in texts("en").all if not key.startswith("reason.")}  # see test_reasons
    assert used - set(known) == set()
    unused = {key for key in set(known) - used - outcomes if not key.startswith(tuple(beginnings))}
    assert unused == set()


@pytest.mark.parametrize(
    ("value", "english", "german"),
    [
        (79.0962, "79.1", "79,1"),
        (9.999, "10.0", "10,0"),
        (-0.67, "-0.670", "-0,670"),
        (0.00012345, "0.000123", "0,000123"),
        (1234.5, "1,230", "1.230"),
        (0.0, "0.00", "0,00"),
    ],
)
def test_scores_have_three_digits_that_matter(value: float, english: str, german: str) -> None:
    assert (texts("en").score(value), texts("de").score(value)) == (english, german)


def test_numbers_are_written_as_the_language_does() -> None:
    assert texts("en").number(1234.5, 1) == "1,234.5"
    assert texts("de").number(1234.5, 1) == "1.234,5"
