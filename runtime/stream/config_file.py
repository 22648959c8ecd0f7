"""The TOML file of `msc-edge stream`: read, checked, and printed."""

import difflib
import os
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import urlsplit

import tomli_w
from pydantic import BaseModel, SecretStr, ValidationError

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config import MofN, SourceConfig, StreamConfig, WebhookConfig
from msc_edge.runtime.stream.sources.address import redacted, shown

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Where paths stand: relative ones are meant from the folder of the file, as a service has no folder of its own.
_PATHS = (("kit",), ("state",), ("results", "jsonl"), ("results", "csv"), ("images", "folder"), ("mqtt", "ca_file"))


def read_config(path: Path, overrides: Mapping[str, Any]) -> StreamConfig:
    """Read a file and lay `overrides` (nested as the file is) over it. UsageError says what is wrong, and where.

    `${NAME}` in any text stands for that environment variable, so that no password need be in the file.
    """
    document = _from_folder(_expanded(_read(path), str(path)), path.resolve().parent)
    if "limits" in overrides:  # they exclude each other: one that is given replaces both
        document.pop("limits", None)
    return check_config(_laid_over(document, overrides), where=f"--config {path}: ")


def where_its_state_is(path: Path) -> dict[str, Any]:
    """`state` and `station` of a file, as far as they are there; the rest of it, and its passwords, is not needed."""
    document = _read(path)
    wanted = {key: document[key] for key in ("state", "station") if key in document}
    return _from_folder(_expanded(wanted, str(path)), path.resolve().parent)


def check_config(document: Mapping[str, Any], *, where: str = "") -> StreamConfig:
    """Check nested options. UsageError for the first that is wrong; an unknown one with the nearest known name."""
    try:
        return StreamConfig.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        # A misspelt option first: what is missing is then often that very one.
        first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
        raise UsageError(f"{where}{_in_words(first)}") from None  # the original would show passwords


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {error.strerror}; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not TOML: {error}") from error


def _in_words(error: Any) -> str:
    place = ".".join(f"{part + 1}" if isinstance(part, int) else str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = sorted(_model_at(error["loc"][:-1]).model_fields)
        name = str(error["loc"][-1])
        near = difflib.get_close_matches(name, known, n=1)
        return f"{place}: there is no such option; " + (
            f"is {near[0]} meant?" if near else f"there are {', '.join(known)}"
        )
    if place == "source" and error["type"] == "list_type":
        return "source: write [[source]], in double brackets, once for each source"
    if error["type"] == "missing":
        return f"{place}: is missing; " + (
            "name a kit" if place == "kit" else "name at least one source" if place == "source" else "give it"
        )
    return f"{place}: {str(error['msg']).removeprefix('Value error, ')}"


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


def _expanded(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(each, where) for key, each in value.items()}
    if isinstance(value, list):
        return [_expanded(each, where) for each in value]
    if not isinstance(value, str):
        return value
    for name in _REFERENCE.findall(value):
        if name not in os.environ:
            raise UsageError(f"--config {where}: ${{{name}}}: there is no such environment variable; set it")
    return _REFERENCE.sub(lambda match: os.environ[match[1]], value)


def _from_folder(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    for *sections, name in _PATHS:
        at: Any = document
        for section in sections:
            at = at.get(section) if isinstance(at, dict) else None
        if isinstance(at, dict) and isinstance(at.get(name), str):
            at[name] = str(folder / at[name])
    sources = document.get("source")
    for source in sources if isinstance(sources, list) else []:
        address = source.get("address") if isinstance(source, dict) else None
        if isinstance(address, str) and address and not address.isdecimal() and "://" not in address:
            source["address"] = str(folder / address)
    return document


def _laid_over(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def config_as_toml(config: StreamConfig) -> str:
    """The configuration in force, as the file would have it; what is secret is hidden, what is not set left out."""
    return tomli_w.dumps(_plain(config))


def _plain(value: Any) -> Any:
    if isinstance(value, MofN):
        return str(value)
    if isinstance(value, SourceConfig):
        return _fields(value) | {"address": shown(value.address.get_secret_value())}
    if isinstance(value, WebhookConfig) and value.url:
        # The path of a webhook is often a secret itself.
        parts = urlsplit(redacted(value.url.get_secret_value()).replace("***@", ""))
        return _fields(value) | {"url": f"{parts.scheme}://{parts.netloc}/***"}
    if isinstance(value, BaseModel):
        return _fields(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path | SecretStr) else value  # a SecretStr shows asterisks


def _fields(section: BaseModel) -> dict[str, Any]:
    return {name: _plain(each) for name in type(section).model_fields if (each := getattr(section, name)) is not None}
