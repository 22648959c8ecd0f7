"""The settings of `msc-edge serve`, checked."""

from dataclasses import dataclass, field

from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.web.settings import WebSettings

_BODIES = 4  # of the largest size, in memory at once


@dataclass(frozen=True, kw_only=True)
class ServeSettings(WebSettings):
    """What a server accepts, and from whom. UsageError for values that cannot be used."""

    workers: int = field(default_factory=usable_cores)
    """Images scored at once, each on a thread."""
    queue: int = 32
    """Images that wait for a thread; more are refused with 503."""
    max_bytes: int = 64_000_000
    """Largest body of a request."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("workers", 1), ("queue", 0), ("max_bytes", 1)):
            self._check_least(name, least)

    @property
    def max_bytes_of_all(self) -> int:
        """The largest sum of the bodies in memory; a request above it is refused with 503."""
        return _BODIES * self.max_bytes
