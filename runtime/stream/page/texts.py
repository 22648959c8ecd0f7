"""The texts of the page: one file for each language, in the folder `texts`."""

import math
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from starlette.requests import Request

Language = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
COOKIE = "msc_edge_language"


class Texts:
    """The texts of one language. Called with a key such as `live.title`, and the values of its placeholders."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        content = (
            files("msc_edge.runtime.stream.page").joinpath("texts", f"{language}.toml").read_text(encoding="utf-8")
        )
        self._texts = dict(_flat(tomllib.loads(content)))

    def __call__(self, key: str, **values: object) -> str:
        """A text. KeyError for one that is not there."""
        return self._texts[key].format(**values)

    def number(self, value: float, digits: int) -> str:
        """A number with this many decimals, as the language writes it."""
        text = f"{value:,.{digits}f}"
        return text if self.language == "en" else text.translate(str.maketrans(",.", ".,"))

    def score(self, value: float) -> str:
        """A score with three digits that matter, whatever its size, as the live page writes it."""
        rounded = float(f"{value:.3g}")
        exponent = math.floor(math.log10(abs(rounded))) if rounded else 0
        return self.number(rounded, max(0, 2 - exponent))

    def of_script(self) -> dict[str, str]:
        """The texts that scripts show, without their section `script`."""
        return {key.removeprefix("script."): text for key, text in self._texts.items() if key.startswith("script.")}

    @property
    def all(self) -> Mapping[str, str]:
        """Every text by its key."""
        return self._texts


@cache
def texts(language: Language) -> Texts:
    """The texts of a language, read once."""
    return Texts(language)


def texts_of(request: Request) -> Texts:
    """The texts for a request: in the language that its user has chosen, else in that of the browser."""
    chosen = request.cookies.get(COOKIE)
    for wanted in (chosen, *_accepted(request.headers.get("accept-language", ""))):
        for language in LANGUAGES:
            if wanted == language:
                return texts(language)
    return texts("en")


def _accepted(header: str) -> list[str]:
    """The languages of a header Accept-Language, the preferred one first."""
    found = []
    for place, part in enumerate(header.split(",")[:20]):
        language, _, parameters = part.strip().partition(";")
        weight = re.fullmatch(r"\s*q=([01](?:\.\d{1,3})?)\s*", parameters)
        found.append((-float(weight[1]) if weight else -1.0, place, language.partition("-")[0].lower()))
    return [language for _, _, language in sorted(found)]


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in document.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found
