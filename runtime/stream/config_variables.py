"""Environment variables in a configuration file: `${NAME}` in any text."""

import os
import re
from typing import Any
from urllib.parse import quote

from msc_edge.errors import UsageError

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expanded(value: Any, where: str) -> Any:
    """A value of the file `where`, any part of TOML, with the variables in its texts. UsageError for one not set."""
    if isinstance(value, dict):
        return {key: expanded(each, where) for key, each in value.items()}
    if isinstance(value, list):
        return [expanded(each, where) for each in value]
    if not isinstance(value, str):
        return value
    for name in _REFERENCE.findall(value):
        if name not in os.environ:
            raise UsageError(f"--config {where}: ${{{name}}}: this environment variable is not set; set it")
    if "${" in _REFERENCE.sub("", value):
        raise UsageError(
            f"--config {where}: a text contains ${{ and no name of an environment variable; write ${{NAME}}, with "
            "letters, digits and _ only, and put a text that contains it into a variable"
        )
    return _REFERENCE.sub(lambda match: _encoded(os.environ[match[1]], value, match.start()), value)


def _encoded(text: str, template: str, position: int) -> str:
    """A text as it is inserted into a template, which may be a URL, at a position."""
    start = template.find("://") + len("://")
    if start < len("://") or position < start:
        return text
    login = template[start:].partition("/")[0].rpartition("@")[0]
    if position < start + len(login):
        # A single variable may hold both, as user:password.
        return quote(text, safe="" if ":" in _REFERENCE.sub("", login) else ":")
    is_value = template[position - 1] == "=" or "?" in template[start:position]
    return quote(text, safe="") if is_value else text
