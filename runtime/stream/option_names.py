"""Errors of the configuration in the words of the command line, for options that were given there."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msc_edge.errors import UsageError

_ROWS: tuple[tuple[str, str, str], ...] = (
    # name of the option in the file, if it was given; a part of a message; what replaces it
    ("trigger.by", r"\btrigger\.by: ", "--trigger "),
    ("trigger.by", r"\[trigger\](?=:| is for)", "--trigger"),
    ("source.max_fps", r"\bsource\.\d+\.max_fps: ", "--max-fps: "),
    ("source.max_fps", r"`max_fps` of \S+", "--max-fps"),
    ("web.port", r"another `port` in \[web\]", "another port with --web"),
    ("web.host", r"correct `host` in \[web\]", "correct the host of --web"),
    ("http.port", r"another `port` in \[http\] of the configuration", "another port with --http"),
    ("mqtt.host", r"\bmqtt\.(port|host): ", r"--mqtt: \1: "),
    ("webhook.url", r"\bwebhook\.url: ", "--webhook: "),
    ("alarm.after", r"\balarm\.after: ", "--alarm-after: "),
    ("alarm.cooldown", r"\balarm\.cooldown: ", "--cooldown: "),
    ("limits.threshold", r"\blimits\.threshold: ", "--threshold: "),
    ("limits.false_alarm_rate", r"\blimits\.false_alarm_rate: ", "--false-alarm-rate: "),
    ("station", r"\bstation: ", "--station: "),
)


@contextmanager
def naming_options(given: Mapping[str, Any]) -> Iterator[None]:
    """Name options of the command line in each UsageError. `given`: what was given there, nested as in the file."""
    try:
        yield
    except UsageError as error:
        message = str(error)
        for name, pattern, words in _ROWS:
            if _has(given, name):
                message = re.sub(pattern, words, message)
        raise type(error)(message) from error


def _has(given: Any, name: str) -> bool:
    first, _, rest = name.partition(".")
    if isinstance(given, list):  # of sources
        return any(_has(each, name) for each in given)
    return isinstance(given, Mapping) and first in given and (not rest or _has(given[first], rest))
