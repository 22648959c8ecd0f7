"""A configuration as text in the format of its file, without secrets."""

import re
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, SecretStr

from msc_edge.runtime.stream.config import SourceConfig, StreamConfig
from msc_edge.runtime.stream.config_sections import MofN, WebhookConfig
from msc_edge.runtime.stream.sources.address import redacted, shown


def config_as_toml(config: StreamConfig) -> str:
    """The configuration in the format of the file, without options that are not set. Secrets become asterisks."""
    return tomli_w.dumps(_plain(config))


def _plain(value: Any) -> Any:
    if isinstance(value, MofN):
        return str(value)
    if isinstance(value, SourceConfig):
        return _fields(value) | {"address": shown(value.address.get_secret_value())}
    if isinstance(value, WebhookConfig) and value.url:
        # The path of a webhook is often a secret.
        url = value.url.get_secret_value()
        scheme, _, place = redacted(url).partition("://")
        host = re.split(r"[/\\?]", place.replace("***@", ""), maxsplit=1)[0]
        return _fields(value) | {"url": f"{scheme}://{host}/***" if "://" in url else "***"}
    if isinstance(value, BaseModel):
        return _fields(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path | SecretStr) else value  # str(SecretStr) is asterisks


def _fields(section: BaseModel) -> dict[str, Any]:
    return {name: _plain(each) for name in type(section).model_fields if (each := getattr(section, name)) is not None}
