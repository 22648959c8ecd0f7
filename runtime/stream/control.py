"""A running stream is told to load its kit again: by a file in its state folder, which works on every system.

`msc-edge reload` writes `reload.request` with an id; the stream takes it away, and answers in `reload.answer`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from msc_edge.errors import KitError, UsageError
from msc_edge.files import written_whole
from msc_edge.runtime.stream.events import new_id

REQUEST, ANSWER = "reload.request", "reload.answer"


def take_request(folder: Path) -> str | None:
    """The id of a request that lies in the state folder, which is removed; None when there is none."""
    path = folder / REQUEST
    try:
        asked = path.read_text(encoding="utf-8").strip()
        path.unlink()
    except (OSError, UnicodeDecodeError):
        return None
    return asked or None


def answer(folder: Path, asked: str, *, loaded: bool, words: str) -> None:
    """Answer a request: whether the kit was loaded, and a sentence."""
    with written_whole(folder / ANSWER) as path:
        path.write_text(json.dumps({"id": asked, "loaded": loaded, "words": words}), encoding="utf-8")


def request_reload(folder: Path, *, timeout: float, wait: Callable[[float], None] = time.sleep) -> str:
    """Ask the stream that works in `folder` to load its kit again, and return what it says.

    Raises KitError when it keeps the old one, UsageError when no stream answers in `timeout` seconds.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such state folder; give the `state` or the --config of the stream")
    asked = new_id()
    with written_whole(folder / REQUEST) as path:
        path.write_text(asked, encoding="utf-8")
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        wait(0.1)
        try:
            said = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if said.get("id") == asked:
            if said["loaded"]:
                return str(said["words"])
            raise KitError(str(said["words"]))
    (folder / REQUEST).unlink(missing_ok=True)
    raise UsageError(f"{folder}: no stream answered in {timeout:g} s; is one running with this state folder?")
