"""The TOML file of `msc-edge stream`: reading and checking it."""

import difflib
import tomllib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from msc_edge.deprecation import AUTO_PRECISION
from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.config_variables import expanded
from msc_edge.runtime.stream.config_warnings import readable_passwords

# Options that are paths. A relative path is relative to the folder of the file: a service has no useful working folder.
_PATHS = (
    *(("kit",), ("trusted_key",), ("state",), ("results", "jsonl"), ("results", "csv")),
    *(("images", "folder"), ("mqtt", "ca_file")),
    *(("web", "users"), ("web", "tls_cert"), ("web", "tls_key")),
)
_DEPRECATED = {"pictures": "images", "engine": "backend"}  # names of 0.1.0


def read_config(
    path: Path, overrides: Mapping[str, Any], *, on_warning: Callable[[str], None] = lambda _: None
) -> StreamConfig:
    """Read a file and replace options by `overrides`, which are nested like the file. UsageError for a wrong option.

    `${NAME}` in any text stands for that environment variable, so that the file needs no passwords. In the login and in
    the values of a URL it is percent-encoded. `on_warning` takes a line about deprecated names, one about
    a deprecated value, and one about passwords that others can read.
    """
    document = _renamed(_read(path), path, on_warning)
    if names := readable_passwords(path, document):
        on_warning(
            f"--config {path}: {', '.join(names)}: a password in plain text, and every user of this PC may read the "
            "file; write ${NAME} and set that environment variable, or take the permission away: chmod o-r"
        )
    document = _with_absolute_paths(expanded(document, str(path)), path.resolve().parent)
    if "limits" in overrides:  # the two limits exclude each other: one that is given replaces both
        document.pop("limits", None)
    return check_config(_merged(document, overrides), where=f"--config {path}: ")


def read_state_options(path: Path) -> dict[str, Any]:
    """`state` and `station` of a file, if present. The other options and their passwords are not needed."""
    document = _read(path)
    found = {key: document[key] for key in ("state", "station") if key in document}
    return _with_absolute_paths(expanded(found, str(path)), path.resolve().parent)


def check_config(document: Mapping[str, Any], *, where: str = "") -> StreamConfig:
    """Check nested options. UsageError for the first wrong one; for an unknown one with the most similar name."""
    try:
        return StreamConfig.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        # A misspelt option first: the missing option is often the same one.
        first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
        raise UsageError(f"{where}{_description(first)}") from None  # the original contains passwords


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {error.strerror}; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not TOML: {error}") from error


def _renamed(document: dict[str, Any], path: Path, on_warning: Callable[[str], None]) -> dict[str, Any]:
    """Replace deprecated names by the current ones, and warn about a deprecated value."""
    found = {old: new for old, new in _DEPRECATED.items() if old in document}
    for old, new in found.items():
        if new in document:
            raise UsageError(
                f"--config {path}: {old} is the deprecated name of {new}, and both are given; remove {old}"
            )
    if found:
        renames = "; ".join(f"{old} is deprecated, use {new}" for old, new in found.items())
        on_warning(f"--config {path}: {renames}")
    if document.get("precision") == "auto":
        on_warning(f'--config {path}: precision = "auto" {AUTO_PRECISION}')
    return {found.get(name, name): value for name, value in document.items()}


def _description(error: Any) -> str:
    place = ".".join(f"{part + 1}" if isinstance(part, int) else str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = sorted(_model_at(error["loc"][:-1]).model_fields)
        name = str(error["loc"][-1])
        near = difflib.get_close_matches(name, known, n=1)
        return f"{place}: unknown option; " + (
            f"did you mean {near[0]}?" if near else f"known options: {', '.join(known)}"
        )
    if place == "source" and error["type"] == "list_type":
        return "source: write [[source]] in double brackets, once for each source"
    if error["type"] == "missing":
        return f"{place}: is missing; " + ("name at least one source" if place == "source" else "give it")
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason


def _model_at(place: tuple[str | int, ...]) -> type[BaseModel]:
    model: type[BaseModel] = StreamConfig
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, types.UnionType, Annotated):
        return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
    return None


def _with_absolute_paths(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    for *sections, name in _PATHS:
        parent: Any = document
        for section in sections:
            parent = parent.get(section) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and isinstance(parent.get(name), str):
            parent[name] = str(folder / parent[name])
    sources = document.get("source")
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict) and isinstance(source.get("kit"), str):
            source["kit"] = str(folder / source["kit"])
        address = source.get("address") if isinstance(source, dict) else None
        if isinstance(address, str) and address and not address.isdecimal() and "://" not in address:
            source["address"] = str(folder / address)
        if isinstance(source, dict) and isinstance(source.get("ca_file"), str):
            source["ca_file"] = str(folder / source["ca_file"])
    return document


def _merged(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged
