"""What a station keeps beside a kit: which images, and who added or undid them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["addition", "defect"]


@dataclass(frozen=True)
class Change:
    """Who did something, when and why."""

    time: str
    """Local time with its offset, ISO 8601."""
    by: str
    reason: str

    @classmethod
    def now(cls, by: str, reason: str) -> "Change":
        """A change at this moment."""
        return cls(datetime.now().astimezone().isoformat(timespec="seconds"), by, reason)


@dataclass(frozen=True)
class KeptImage:
    """An image that the station keeps: one that was learned, or a confirmed defect, which guards what is learned."""

    id: int
    kind: Kind
    added: Change
    name: str
    """The file that it came from."""
    digest: str
    """SHA-256 of the content of that file, hexadecimal."""
    undone: Change | None
    """None: it counts."""


def learned_digests(images: Iterable[KeptImage]) -> list[str]:
    """The digests of the additions that count, in ascending order."""
    return sorted(image.digest for image in images if image.kind == "addition" and image.undone is None)
