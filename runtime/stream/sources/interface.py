"""The protocol of a source."""

from collections.abc import Callable, Generator
from typing import Protocol

from msc_edge.runtime.stream.events import EventKind
from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.sources.outage import Outage

# (kind, sentence for a person, seconds without a scored frame)
OnEvent = Callable[[EventKind, str, float | None], None]


class Source(Protocol):
    """Yields frames until it ends or is closed. One thread reads the frames; `close` is called from another."""

    name: str
    is_live: bool
    """Whether frames arrive at their own rate and become outdated."""

    @property
    def outage(self) -> Outage | None:
        """Why and since when there are no frames; None while there are. May be read from other threads."""
        ...

    @property
    def partial_outage(self) -> str:
        """Why a part of the frames is missing, while others are scored; empty while none is. As `outage`."""
        ...

    def frames(self, on_event: OnEvent) -> Generator[Frame | None, None, None]:
        """Yield frames, and at least every few seconds None while there is no frame.

        `on_event` takes events about the source. A frame counts as processed when the next one is requested.
        """
        ...

    def scored(self) -> None:
        """The last frame was scored, or cannot be: what follows, such as writing its row, may wait for a disk."""
        ...

    def close(self) -> None:
        """Make `frames` end soon. May be called more than once."""
        ...
