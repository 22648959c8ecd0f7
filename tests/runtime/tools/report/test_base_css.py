"""The colours of base.css: contrasts as WCAG 2.2 defines them."""

import re
from importlib.resources import files

import pytest

CSS = (files("msc_edge.runtime.tools.report") / "base.css").read_text(encoding="utf-8")
TEXTS = ("ink", "quiet", "good", "warn", "bad")
GRAPHICS = (*TEXTS, "scores-normal", "scores-defect", "scores")


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", light))
    return found | dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", dark)) if scheme == "dark" else found


def test_the_contrast_of_black_and_white_is_21(contrast):
    assert contrast("#000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("names", "least"), [(TEXTS, 4.5), (GRAPHICS, 3)])
def test_texts_and_graphics_have_enough_contrast(scheme, names, least, contrast):
    """Success criteria 1.4.3 (text, 4.5) and 1.4.11 (graphics, 3)."""
    found = colours(scheme)
    for name in names:
        for background in ("paper", "panel"):
            assert contrast(found[name], found[background]) >= least, (name, background)


def test_the_dark_scheme_has_all_colours_of_the_light_one_and_is_not_printed():
    assert colours("dark").keys() == colours("light").keys()
    assert all(colours("dark")[name] != colour for name, colour in colours("light").items())
    assert CSS.count("prefers-color-scheme") == CSS.count("@media screen and (prefers-color-scheme: dark)") == 1


def test_colours_are_named_once():
    """Other rules use the names, so that both schemes have them; the exceptions lie on images."""
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    for line in rules.splitlines():
        if re.search(r"#[0-9a-f]{3,6}\b", line):
            assert re.match(r"\.casing|\.mask|  \.zoom|    padding", line), line
