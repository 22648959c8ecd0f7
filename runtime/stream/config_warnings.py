"""Passwords that others could read: in the configuration file, and on the network."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.web.listening import is_loopback

_SECRET_NAMES = {"password", "secret", "token"}
_PASSWORDS_IN_URL = re.compile(
    r"(?:^[a-z][a-z0-9+.-]*://[^/@:]*:([^/@]+)@)|(?:(?:pass(?:word|wd)?|pwd|token|auth|key|secret)=([^_&/;,#]+))",
    re.IGNORECASE,
)


def readable_passwords(path: Path, document: dict[str, Any]) -> list[str]:
    """The options of a file, as it was read, that hold a password in plain text while every user may read the file."""
    if os.name == "nt" or not path.stat().st_mode & stat.S_IROTH:
        return []
    return list(_literal_passwords(document))


def _literal_passwords(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _literal_passwords(each, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for number, each in enumerate(value, start=1):
            yield from _literal_passwords(each, f"{name}.{number}")
    elif isinstance(value, str) and value:
        passwords = [value] if name.rpartition(".")[2] in _SECRET_NAMES else []
        if "://" in value:
            passwords += [found[1] or found[2] for found in _PASSWORDS_IN_URL.finditer(value)]
        if any("${" not in password for password in passwords):
            yield name


def password_without_tls(config: StreamConfig) -> bool:
    """Whether an MQTT password crosses the network in plain text."""
    mqtt = config.mqtt
    return bool(mqtt.host) and mqtt.password is not None and not mqtt.tls and not _is_this_pc(mqtt.host or "")


def _is_this_pc(host: str) -> bool:
    try:
        return is_loopback(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
