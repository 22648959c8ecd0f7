"""What the stream asks of a source."""

from collections.abc import Callable, Generator
from typing import Protocol

from msc_edge.runtime.stream.events import EventKind
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.state import DoneFile

# (kind, sentence for a person, seconds without a scored frame)
OnEvent = Callable[[EventKind, str, float | None], None]


class Source(Protocol):
    """Yields frames until it ends, or is closed. Its thread is its own; `close` and `is_stuck` come from others."""

    name: str
    is_live: bool
    """Whether frames come whether they are asked for or not, and are out of date soon."""

    def frames(self, tell: OnEvent) -> Generator[Frame | None, None, None]:
        """The frames. None, at least every few seconds, means that there is none yet, and all is well here.

        `tell` takes events about the source. A frame counts as done when the next one is asked for.
        """
        ...

    def done(self, decision: Decision) -> DoneFile | None:
        """What is to be recorded together with this decision, so that the file is never scored again."""
        ...

    def close(self) -> None:
        """Let `frames` end soon. May be called more than once."""
        ...
