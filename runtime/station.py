"""The name of a station, the folder of its state, and its user: the same for the stream and for all commands."""

import getpass
import os
import re
import socket
from pathlib import Path

import platformdirs


def default_station() -> str:
    """The station's name where none is configured: the PC's name, in characters that a station may have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip("_.-")[:63] or "line"


def state_folder(state: Path | None = None, *, station: str | None = None) -> Path:
    """Where a stream keeps its state: `state` as configured, or systemd's $STATE_DIRECTORY, or the user's own folder.

    The user's own folder has one folder for each station; without `station` it is that of `default_station`.
    """
    if state:
        return state
    if given := os.environ.get("STATE_DIRECTORY", ""):
        return Path(given.partition(":")[0])
    return platformdirs.user_state_path("msc-edge", appauthor=False) / (station or default_station())


def user_name() -> str:
    """The name of the user of this PC, for records."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "unknown"
