import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.sources.address import parse_address
from msc_edge.runtime.stream.sources.camera import CameraSource

TIMEOUT = 30.0


@dataclass
class Watched:
    """A live source that a thread reads, with its events and frames."""

    source: CameraSource
    events: "queue.Queue[tuple[str, str, float | None]]" = field(default_factory=queue.Queue)
    frames: "queue.Queue[tuple[Frame, np.ndarray]]" = field(default_factory=queue.Queue)
    restarts: int = 0

    def read(self) -> None:
        for frame in self.source.frames(lambda *event: self.events.put(event)):
            if frame is not None:
                assert frame.image is not None
                self.frames.put((frame, frame.image.copy()))

    def event(self) -> tuple[str, str, float | None]:
        return self.events.get(timeout=TIMEOUT)

    def wait_for(self, kind: str) -> tuple[str, str, float | None]:
        """The next event of a kind. On a busy machine a camera with a short `lost_after` may be lost at first."""
        while (found := self.event())[0] != kind:
            pass
        return found

    def frame(self) -> tuple[Frame, np.ndarray]:
        return self.frames.get(timeout=TIMEOUT)

    def forget_frames(self) -> None:
        while not self.frames.empty():
            self.frames.get()

    @property
    def pid(self) -> int:
        assert self.source._grabber
        assert self.source._grabber.pid
        return self.source._grabber.pid


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    """Read a source with these options."""
    started: list[tuple[Watched, threading.Thread]] = []

    def start(address: str, **options: Any) -> Watched:
        config = SourceConfig.model_validate(
            {"address": address, "open_timeout": 2, "read_timeout": 2, "lost_after": 20} | options
        )
        watched = Watched(CameraSource("cam", parse_address(address), config))
        watched.source._on_restart = lambda: setattr(watched, "restarts", watched.restarts + 1)
        thread = threading.Thread(target=watched.read, daemon=True)
        thread.start()
        started.append((watched, thread))
        return watched

    yield start
    for watched, _ in started:
        watched.source.close()
    for _, thread in started:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
