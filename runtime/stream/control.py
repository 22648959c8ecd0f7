"""A running stream is told to load its kit again: by files in its state folder, which work on every system.

`msc-edge reload` writes `reload-<id>.request`; the stream takes it away, and answers in `reload-<id>.answer`.
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
    """The ids of the requests that lie in the state folder, which are removed."""
    prefix, suffix = _REQUEST.split("{}")
    taken = []
    for path in folder.glob(_REQUEST.format("*")):
        try:
            path.unlink()
        except OSError:  # withdrawn meanwhile
            continue
        taken.append(path.name.removeprefix(prefix).removesuffix(suffix))
    return taken


def answer(folder: Path, asked: str, *, loaded: bool, words: str) -> None:
    """Answer a request: whether the kit was loaded, and a sentence. OutputError when it cannot be written."""
    with written_whole(folder / _ANSWER.format(asked)) as path:
        path.write_text(json.dumps({"loaded": loaded, "words": words}), encoding="utf-8")


def request_reload(folder: Path, *, timeout: float, wait: Callable[[float], None] = time.sleep) -> str:
    """Ask the stream that works in `folder` to load its kit again, and return what it says.

    Raises KitError when it keeps the old one, UsageError when no stream answers in `timeout` seconds.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such state folder; give the `state` or the --config of the stream")
    asked = new_id()
    request, said_in = folder / _REQUEST.format(asked), folder / _ANSWER.format(asked)
    with written_whole(request):  # its name says all
        pass
    try:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            wait(0.1)
            try:
                said = json.loads(said_in.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if said["loaded"]:
                return str(said["words"])
            raise KitError(str(said["words"]))
    finally:
        request.unlink(missing_ok=True)
        said_in.unlink(missing_ok=True)
    raise UsageError(f"{folder}: no stream answered in {timeout:g} s; is one running with this state folder?")
