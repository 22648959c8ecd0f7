"""Pages from templates in a package: what is common to reports, the studio and the pages of servers."""

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from msc_edge.text import many, one_line, percent


def template_environment(package: str, folder: str = "", *, shared: Sequence[str] = ()) -> Environment:
    """The templates in a package, or in a folder of it; those that it does not have are from the packages `shared`.

    Texts are escaped, and control characters become escapes; Markup is inserted as it is. A name without a value is an
    error. The filters `percent` and `many` are those of `msc_edge.text`; `lines` keeps line breaks, for `<pre>`.
    """

    places = [files(package).joinpath(folder), *map(files, shared)]

    def source(name: str) -> str | None:
        found = (file for place in places if (file := place.joinpath(name)).is_file())
        return next((file.read_text(encoding="utf-8") for file in found), None)

    environment = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "many": many, "lines": _lines}
    return environment


def _lines(text: str) -> Markup:
    return Markup("\n").join(one_line(line) for line in text.split("\n"))


def _finalize(value: object) -> object:
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value
