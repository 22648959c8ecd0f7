"""Reload requests to a running stream, as files in its state folder. This works on every operating system.

`msc-edge reload` writes `reload-<id>.request`. The stream removes it and writes `reload-<id>.answer`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from msc_edge.errors import KitError, UsageError
from msc_edge.files import written_whole
from msc_edge.runtime.stream.events import new_id

_REQUEST, _ANSWER = "reload-{}.request", "reload-{}.answer"


def take_requests(folder: Path) -> list[str]:
    """Remove the requests from the state folder, and return their ids."""
    prefix, suffix = _REQUEST.split("{}")
    taken = []
    for path in folder.glob(_REQUEST.format("*")):
        try:
            path.unlink()
        except OSError:  # withdrawn meanwhile
            continue
        taken.append(path.name.removeprefix(prefix).removesuffix(suffix))
    return taken


def answer(folder: Path, request: str, *, loaded: bool, message: str) -> None:
    """Answer the request with this id. OutputError when the answer cannot be written."""
    with written_whole(folder / _ANSWER.format(request)) as path:
        path.write_text(json.dumps({"loaded": loaded, "message": message}), encoding="utf-8")


def request_reload(folder: Path, *, timeout: float, wait: Callable[[float], None] = time.sleep) -> str:
    """Request a reload from the stream with this state folder, and return its message.

    Raises KitError when the stream keeps the previous kit, UsageError when no stream answers in `timeout` seconds.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such state folder; give the `state` or the --config of the stream")
    id = new_id()
    request, answered = folder / _REQUEST.format(id), folder / _ANSWER.format(id)
    with written_whole(request):  # an empty file: its name is the request
        pass
    try:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            wait(0.1)
            try:
                answer = json.loads(answered.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            # A stream that was started before an upgrade from 0.1.0 answers with "words".
            message = str(answer.get("message") or answer.get("words"))
            if answer["loaded"]:
                return message
            raise KitError(message)
    finally:
        request.unlink(missing_ok=True)
        answered.unlink(missing_ok=True)
    raise UsageError(f"{folder}: no stream answered in {timeout:g} s; is a stream running with this state folder?")
