"""Requests to a running stream, as files in its state folder. This works on every operating system.

`msc-edge reload` writes `reload-<id>.request`, `msc-edge stream --print-config --running` writes `config-<id>.request`.
The stream removes it and writes `<kind>-<id>.answer`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msc_edge.errors import KitError, UsageError
from msc_edge.files import written_whole
from msc_edge.runtime.stream.events import new_id

RequestKind = Literal["reload", "config"]


def take_requests(folder: Path, kind: RequestKind) -> list[str]:
    """Remove the requests of a kind from the state folder, and return their names."""
    taken = []
    for path in folder.glob(f"{kind}-*.request"):
        try:
            path.unlink()
        except OSError:  # withdrawn meanwhile
            continue
        taken.append(path.stem)
    return taken


def answer(folder: Path, request: str, *, done: bool, message: str) -> None:
    """Answer the request with this name. OutputError when the answer cannot be written."""
    # "loaded": msc-edge 0.1.0 and 0.2.0 read it.
    with written_whole(folder / f"{request}.answer") as path:
        path.write_text(json.dumps({"loaded": done, "message": message}), encoding="utf-8")


def request_reload(folder: Path, *, timeout: float, wait: Callable[[float], None] = time.sleep) -> str:
    """Request a reload from the stream with this state folder, and return its message.

    Raises KitError when the stream keeps the previous kit, UsageError when no stream answers in `timeout` seconds.
    """
    done, message = _request(folder, "reload", timeout=timeout, wait=wait)
    if not done:
        raise KitError(message)
    return message


def request_config(folder: Path, *, timeout: float, wait: Callable[[float], None] = time.sleep) -> str:
    """The active configuration of the stream with this state folder, as TOML without secrets; see `request_reload`."""
    return _request(folder, "config", timeout=timeout, wait=wait)[1]


def _request(folder: Path, kind: RequestKind, *, timeout: float, wait: Callable[[float], None]) -> tuple[bool, str]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such state folder; give the `state` or the --config of the stream")
    name = f"{kind}-{new_id()}"
    request, answered = folder / f"{name}.request", folder / f"{name}.answer"
    with written_whole(request):  # an empty file: its name is the request
        pass
    try:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            wait(0.1)
            try:
                found = json.loads(answered.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            # A stream that was started before an upgrade from 0.1.0 answers with "words".
            return bool(found["loaded"]), str(found.get("message") or found.get("words"))
    finally:
        request.unlink(missing_ok=True)
        answered.unlink(missing_ok=True)
    raise UsageError(f"{folder}: no stream answered in {timeout:g} s; is a stream running with this state folder?")
